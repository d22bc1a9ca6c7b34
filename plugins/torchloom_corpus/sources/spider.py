"""The process that crawls: Scrapy with a queue that survives a kill, a resolver that refuses private addresses, and WARC."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from scrapy import Request, Spider, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadTimeoutError,
    IgnoreRequest,
    StopDownload,
)
from scrapy.http import HtmlResponse, Response
from scrapy.linkextractors import LinkExtractor
from scrapy.resolver import CachingHostnameResolver
from scrapy.robotstxt import RobotParser
from scrapy.utils.response import get_meta_refresh
from twisted.internet.interfaces import IResolutionReceiver
from twisted.python.failure import Failure
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter
from zope.interface import implementer

from torchloom_corpus.sources.configs import CrawlConfig
from torchloom_corpus.sources.crawl import ARCHIVES, DATABASE, LOG, STOPPED
from torchloom_corpus.sources.decoding import decode_html
from torchloom_corpus.sources.frontier import MAX_REDIRECTS, REDIRECT, Frontier, Page
from torchloom_corpus.sources.html import is_html

MAX_URL = 2083
MAX_CRAWL_DELAY = 60.0
"""Seconds; a robots.txt that asks for more gets this."""

# IPv6 addresses that are IPv4 ones in disguise: RFC 6052's well-known prefix.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet, whatever form it is written in.

    Args:
        address: IPv4 or IPv6 address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(parsed.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


class PublicResolver(CachingHostnameResolver):
    """Resolves names to public addresses only, but for hosts that are allowed to have others.

    It stands right before the connection, which is made to the very addresses that it lets through: neither a redirect,
    nor a public name with a private address, nor one that changes its address between two look-ups gets past it.
    """

    allowed: frozenset[str] = frozenset()
    refused: dict[str, str] = {}  # noqa: RUF012 - one process, one crawl
    """Hosts that had no public address, and an address of theirs."""

    @classmethod
    def from_crawler(cls, crawler: Crawler, reactor: Any) -> PublicResolver:
        """Make one for a crawl.

        Args:
            crawler: Has the settings.
            reactor: Twisted's.
        """
        cls.allowed = frozenset(name.strip("[]").lower() for name in crawler.settings.getlist("ALLOW_PRIVATE"))
        return super().from_crawler(crawler, reactor)

    def resolveHostName(  # noqa: N802 - Twisted's names
        self,
        resolutionReceiver: Any,  # noqa: N803
        hostName: str,  # noqa: N803
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Resolve a name.

        Args:
            resolutionReceiver: Is told the addresses.
            hostName: Name, or an address in any form.
            args: Passed on.
            kwargs: Passed on.
        """
        allowed = hostName.lower() in self.allowed
        receiver: Any = resolutionReceiver if allowed else _PublicOnly(resolutionReceiver, hostName, self.refused)
        return super().resolveHostName(receiver, hostName, *args, **kwargs)


@implementer(IResolutionReceiver)
class _PublicOnly:
    def __init__(self, receiver: Any, host: str, refused: dict[str, str]) -> None:
        self._receiver = receiver
        self._host = host
        self._refused = refused
        self._found = ""
        self._public = False

    def resolutionBegan(self, resolution: Any) -> None:  # noqa: N802 - Twisted's name
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: Any) -> None:  # noqa: N802 - Twisted's name
        if is_public(address.host):
            self._public = True
            self._receiver.addressResolved(address)
        else:
            self._found = address.host

    def resolutionComplete(self) -> None:  # noqa: N802 - Twisted's name
        if self._found and not self._public:
            self._refused[self._host] = self._found
        self._receiver.resolutionComplete()


class Archive:
    """Numbered WARC files, of which no record is left half written where it counts as kept.

    Args:
        folder: Where they are.
        frontier: Knows how far each of them is whole; what is behind was being written when the last crawl was killed.
        pages_per_file: Records a file.
    """

    def __init__(self, folder: Path, frontier: Frontier, pages_per_file: int) -> None:
        self._folder = folder
        self._limit = pages_per_file
        self.number, self._pages, end = frontier.last_file()
        path = self._path(self.number)
        if path.exists():
            frontier.forget_beyond(self.number, path.stat().st_size)
            self.number, self._pages, end = frontier.last_file()
            os.truncate(self._path(self.number), end)
        for later in folder.glob(ARCHIVES):
            if later.name > self._path(self.number).name:
                later.unlink()
        self._file = self._path(self.number).open("ab")

    def _path(self, number: int) -> Path:
        return self._folder / ARCHIVES.replace("*", f"{number:06d}")

    def write(self, url: str, response: Response) -> int:
        """Append a page, and return where its record ends.

        Args:
            url: Its address.
            response: It, decompressed.
        """
        if self._pages >= self._limit:
            self.close()
            self.number, self._pages = self.number + 1, 0
            self._file = self._path(self.number).open("ab")
        body, record = response.body, io.BytesIO()
        writer = WARCWriter(record, gzip=True)
        undone = ("content-encoding", "transfer-encoding", "content-length")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in response.headers.items()
            for value in values
            if name.decode("latin-1").lower() not in undone
        ]
        headers.append(("Content-Length", str(len(body))))
        fetched = {"WARC-Date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        if response.ip_address is not None:
            fetched["WARC-IP-Address"] = str(response.ip_address)
        http = StatusAndHeaders(f"{response.status} OK", headers, protocol="HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(
                url, "response", io.BytesIO(body), length=len(body), http_headers=http, warc_headers_dict=fetched
            )
        )
        self._file.write(record.getbuffer())
        self._file.flush()
        self._pages += 1
        return self._file.tell()

    def close(self) -> None:
        """Close the file, of which everything is then on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


class FrontierScheduler(BaseScheduler):
    """Hands out the frontier's pages; only retries are kept in memory, and those count as waiting after a kill."""

    spider: CrawlSpider

    def open(self, spider: Spider) -> None:
        """Begin.

        Args:
            spider: Has the frontier.
        """
        assert isinstance(spider, CrawlSpider)
        self.spider = spider
        self._again: deque[Request] = deque()

    def has_pending_requests(self) -> bool:
        """Whether the crawl is not over."""
        return bool(self._again) or not self.spider.frontier.exhausted

    def enqueue_request(self, request: Request) -> bool:
        """Keep a request that is to be tried once more.

        Args:
            request: It.
        """
        self._again.append(request)
        return True

    def next_request(self) -> Request | None:
        """Return what is to be fetched next, if anything is for now."""
        if self._again:
            return self._again.popleft()
        page = self.spider.frontier.take()
        return None if page is None else self.spider.request(page)


class CrawlSpider(Spider):
    """Keeps HTML pages and follows their links; where it may go and what it does is all in its settings.

    Args:
        config: Settings.
        frontier: What is fetched and to be fetched.
        archive: Where pages are kept.
    """

    name = "torchloom"

    def __init__(self, config: CrawlConfig, frontier: Frontier, archive: Archive) -> None:
        super().__init__()
        self.config = config
        self.frontier = frontier
        self.archive = archive
        sites = config.allowed_domains or [urlsplit(seed).hostname or "" for seed in config.seeds]
        self.sites = tuple(f".{site.lower().strip('.')}" for site in sites)
        self._links = LinkExtractor()
        self._delays: dict[str, float] = {}
        self._failed = 0
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("Crawling")

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> CrawlSpider:
        """Make one for a crawl.

        Args:
            crawler: Has the settings.
            args: Passed on.
            kwargs: Passed on.
        """
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.refuse_content, signals.headers_received)
        crawler.signals.connect(spider.note_robots, signals.robots_parsed)
        crawler.signals.connect(spider._progress.start, signals.spider_opened)
        crawler.signals.connect(spider._progress.stop, signals.spider_closed)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """Begin with what the frontier has."""
        # Connected this late it is called behind the extension that throttles.
        self.crawler.signals.connect(self.hold_back, signals.response_downloaded)
        return
        yield

    def request(self, page: Page) -> Request:
        """Make the request for a page.

        Args:
            page: It.
        """
        # Redirects are pages of their own to the frontier, so that each address is fetched once and loops end by that.
        meta = {"page": page, "dont_redirect": True, "handle_httpstatus_all": True}
        return Request(page.url, self.parse, errback=self.failed, meta=meta, dont_filter=True)

    def refuse_content(self, headers: Any, request: Request, **kwargs: Any) -> None:
        """Stop a download when its header says that it is no HTML.

        Args:
            headers: Of the response.
            request: What it answers.
            kwargs: Not needed.

        Raises:
            StopDownload: It is none.
        """
        content_type = headers.get("Content-Type")
        if not content_type or headers.get("Location") or "page" not in request.meta:
            return
        if not is_html(content_type.decode("latin-1"), b""):
            raise StopDownload(fail=True)

    def note_robots(self, robotparser: RobotParser, request: Request, **kwargs: Any) -> None:
        """Keep the pause that a robots.txt asks for.

        Args:
            robotparser: It.
            request: What it was fetched for.
            kwargs: Not needed.
        """
        delay = robotparser.crawl_delay(self.config.user_agent)
        if delay:
            self._delays[self._slot(request)] = min(delay, MAX_CRAWL_DELAY)
            self.hold_back(request)

    def hold_back(self, request: Request, **kwargs: Any) -> None:
        """See that the pause is no shorter than robots.txt asks for, whatever it was throttled to.

        Args:
            request: One to the host.
            kwargs: Not needed.
        """
        key = self._slot(request)
        assert self.crawler.engine is not None
        slot = self.crawler.engine.downloader.slots.get(key)
        if slot is not None and key in self._delays:
            slot.delay = max(slot.delay, self._delays[key])

    def _slot(self, request: Request) -> str:
        assert self.crawler.engine is not None
        return self.crawler.engine.downloader.get_slot_key(request)

    def parse(self, response: Response, **kwargs: Any) -> None:
        """Keep a page and note its links; or note why it is not kept.

        Args:
            response: What the server sent.
            kwargs: Not needed.
        """
        page: Page = response.meta["page"]
        location = response.headers.get("Location")
        content_type = (response.headers.get("Content-Type") or b"").decode("latin-1")
        if response.status in (301, 302, 303, 307, 308) and location:
            self._redirect(page, response, location)
        elif response.status != 200:
            self._finish(page, reason=f"HTTP {response.status}")
        elif not is_html(content_type, response.body):
            self._finish(page, reason="not HTML")
        else:
            counts = list(self._follow(page, response, content_type))
            end = self.archive.write(page.url, response)
            self._finish(page, file=self.archive.number, end=end, counts=counts)

    def _redirect(self, page: Page, response: Response, location: bytes) -> None:
        target = urldefrag(urljoin(response.url, location.decode("utf-8", "replace")))[0]
        if (refusal := self._refusal(target)) is not None:
            self._finish(page, reason=f"redirect: {refusal}")
        elif page.hops >= MAX_REDIRECTS:
            self._finish(page, reason="too many redirects")
        else:
            self.frontier.add(target, page.depth, page.hops + 1)
            self._finish(page, reason=REDIRECT, target=target)

    def _refusal(self, url: str) -> str | None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or len(url) > MAX_URL:
            return "not an address of a web page"
        host = f".{(parts.hostname or '').lower()}"
        return None if host.endswith(self.sites) else "to another site"

    def _follow(self, page: Page, response: Response, content_type: str) -> Iterator[str]:
        text = decode_html(response.body, content_type).text
        html = HtmlResponse(response.url, body=text.encode("utf-8", "replace"), encoding="utf-8")
        try:
            found = [link.url for link in self._links.extract_links(html)]
            refresh = get_meta_refresh(html)[1]
        except (ValueError, RecursionError):  # no tree can be made of it
            yield "pages whose links could not be read"
            return
        for url in {urldefrag(link)[0]: None for link in (*found, *([refresh] if refresh else ()))}:
            if (refusal := self._refusal(url)) is not None:
                yield f"links {refusal}"
            elif self.config.max_depth is not None and page.depth >= self.config.max_depth:
                yield "links beyond max_depth"
            else:
                self.frontier.add(url, page.depth + 1)

    def failed(self, failure: Failure) -> None:
        """Note why a page could not be fetched.

        Args:
            failure: Scrapy's.
        """
        page: Page = failure.request.meta["page"]  # type: ignore[attr-defined]
        error = failure.value
        if isinstance(error, StopDownload):
            reason = "not HTML"
        elif isinstance(error, IgnoreRequest):
            reason = "robots.txt" if "robots.txt" in str(error) else "too large"
        elif isinstance(error, DownloadCancelledError):
            reason = "too large"
        elif isinstance(error, DownloadTimeoutError):
            reason = "timed out"
        elif isinstance(error, DownloadConnectionRefusedError):
            reason = "connection refused"
        elif isinstance(error, CannotResolveHostError):
            reason = "private address" if page.host in PublicResolver.refused else "unknown host"
        else:
            self.logger.warning("%s: %r", page.url, error)
            reason = "connection lost or broken response"
        self._finish(page, reason=reason)

    def _finish(self, page: Page, **how: Any) -> None:
        self.frontier.finish(page, **how)
        self._failed += how.get("reason") not in (None, REDIRECT)
        self._progress.update(
            self._task,
            description=f"Crawling: {self.frontier.kept:,} pages kept, {self._failed:,} not, "
            f"{self.frontier.waiting:,} waiting (level {page.depth})",
        )


def main() -> None:
    """Crawl as a line on standard input says, for as long as that stays open."""
    job = json.loads(sys.stdin.buffer.readline())
    config, folder = CrawlConfig(**job["config"]), Path(job["folder"])
    # The process that waits for this one may be killed: nothing would then stop it, nor keep a second one from starting.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    frontier = Frontier(folder / DATABASE, config.max_pages, config.concurrency_per_host)
    archive = Archive(folder, frontier, config.pages_per_file)
    process = CrawlerProcess(_settings(config, folder))
    process.crawl(CrawlSpider, config, frontier, archive)
    process.start()
    archive.close()
    complete = frontier.exhausted
    frontier.close()
    sys.exit(0 if complete else STOPPED)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _settings(config: CrawlConfig, folder: Path) -> dict[str, Any]:
    return {
        "SCHEDULER": FrontierScheduler,
        "TWISTED_DNS_RESOLVER": PublicResolver,
        "ALLOW_PRIVATE": config.allow_private,
        "USER_AGENT": config.user_agent,
        "DEFAULT_REQUEST_HEADERS": {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"},  # in any language
        "ROBOTSTXT_OBEY": config.obey_robots,
        "DOWNLOAD_DELAY": config.delay,
        "DOWNLOAD_DELAY_JITTER": 0,  # it would go below the delay as often as above
        "AUTOTHROTTLE_ENABLED": config.autothrottle,
        "AUTOTHROTTLE_START_DELAY": config.delay,
        "CONCURRENT_REQUESTS": config.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": config.concurrency_per_host,
        "RETRY_TIMES": config.retries,
        "DOWNLOAD_TIMEOUT": config.timeout,
        "DOWNLOAD_MAXSIZE": config.max_page_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        # Only the web: no file:, ftp: or s3: that a page could name. A proxy would resolve names in our stead.
        "DOWNLOAD_HANDLERS": dict.fromkeys(("data", "file", "ftp", "s3")),
        "HTTPPROXY_ENABLED": False,
        "COOKIES_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "LOG_FILE": str(folder / LOG),
        "LOG_LEVEL": "INFO",
    }
