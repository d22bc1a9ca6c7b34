"""Crawling: real sites on loopback, with everything that sites do to a crawler."""

import dataclasses
import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")
pytest.importorskip("scrapy", reason="needs torchloom[corpus]")

from torchloom.errors import DataError
from torchloom_corpus.sources.configs import CrawlConfig
from torchloom_corpus.sources.crawl import Crawl
from torchloom_corpus.sources.frontier import Frontier
from torchloom_corpus.tally import StepTally


class Site:
    """A server of pages; a page is its links, or a function that answers the request."""

    def __init__(self, pages, host="127.0.0.1", pause=0.0):
        site = self
        self.hits = []
        self.starts = []
        self.pages = pages
        self.pause = pause

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.hits.append(self.path)
                site.starts.append(time.monotonic())
                time.sleep(site.pause)
                page = site.pages.get(self.path)
                if page is None:
                    self.answer(404, b"nothing here")
                elif callable(page):
                    page(self)
                else:
                    links = "".join(f'<a href="{link}">a link</a>' for link in page)
                    self.answer(200, f"<html><body><p>This is {self.path}.</p>{links}</body></html>".encode())

            def answer(self, status, body=b"", content_type="text/html; charset=utf-8", **headers):
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def redirect(target, status=302):
    return lambda handler: handler.answer(status, Location=target)


def settings(site, **fields):
    fields = {"seeds": [f"{site.url}/"], "allow_private": ["127.0.0.1"], "delay": 0, "autothrottle": False, **fields}
    return CrawlConfig(**fields)


def crawl(site, folder, **fields):
    """Crawl, and return what was kept by path, and the tally of it."""
    source, tally = Crawl(settings(site, **fields)), StepTally("crawl")
    source.prepare(folder, tally)
    return kept(source, folder, site), tally


def kept(source, folder, site):
    tally = StepTally("crawl")
    documents = [document for unit in source.units(folder) for document in source.read(unit, tally)]
    assert not tally.dropped
    assert len({document.id for document in documents}) == len(documents)
    found = {document.metadata["url"].removeprefix(site.url): document.text for document in documents}
    assert len(found) == len(documents), "a page was kept twice"
    return found


def examples(tally, reason):
    return {example["id"] for example in tally.examples[reason]}


def test_everything_that_sites_do_to_a_crawler(tmp_path):
    """One crawl of all kinds of trouble, since starting Scrapy takes most of a second."""

    def bomb(handler):
        handler.answer(200, gzip.compress(bytes(30_000_000)), Content_Encoding="gzip")

    def endless(handler):  # says no length, and never ends
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"<p>more</p>" * 10_000)
        except OSError:
            pass

    attempts = Counter()

    def shaky(handler):
        attempts["/shaky"] += 1
        handler.answer(503 if attempts["/shaky"] == 1 else 200, b"<html><p>After all.</p></html>")

    with Site({"/": ["/inside"], "/inside": []}, host="127.0.0.2") as inner:
        pages = {
            "/robots.txt": lambda handler: handler.answer(200, b"User-agent: *\nDisallow: /forbidden", "text/plain"),
            "/": [
                *(
                    "/cycle",
                    "/forbidden/page",
                    "/bomb",
                    "/endless",
                    "/picture",
                    "/unnamed",
                    "/zipped",
                    "/latin",
                    "/shaky",
                ),
                *(
                    "/gone",
                    "/there",
                    "/loop-a",
                    "/self",
                    "/long/0",
                    "/inwards",
                    "/refresh",
                    "/?b=2&a=1",
                    "/?a=1&b=2#part",
                ),
                *("http://elsewhere.invalid/", "mailto:me@here.invalid", "http://[broken", "javascript:void(0)"),
                *(f"http://localhost:{inner.server.server_port}/", f"{inner.url}/secret", "/down"),
            ],
            "/cycle": ["/", "/cycle", "/cycle?"],
            "/forbidden/page": [],
            "/bomb": bomb,
            "/endless": endless,
            "/picture": lambda handler: handler.answer(200, b"\x89PNG", "image/png"),
            "/unnamed": lambda handler: handler.answer(200, b"{}", ""),
            "/zipped": lambda handler: handler.answer(
                200, gzip.compress(b"<html><p>It was zipped.</p></html>"), Content_Encoding="gzip"
            ),
            "/latin": lambda handler: handler.answer(
                200, "<html><p>déjà vu".encode("latin-1"), "text/html; charset=utf-8"
            ),
            "/shaky": shaky,
            "/there": redirect("/here", 301),
            "/here": [],
            "/loop-a": redirect("/loop-b"),
            "/loop-b": redirect("/loop-a"),
            "/self": redirect("/self"),
            **{f"/long/{n}": redirect(f"/long/{n + 1}") for n in range(100)},
            "/inwards": redirect(f"{inner.url}/secret"),
            "/refresh": lambda handler: handler.answer(
                200, b'<html><meta http-equiv="refresh" content="0; url=/fresh"><p>Wait.</p></html>'
            ),
            "/fresh": [],
            "/?b=2&a=1": [],
            "/?a=1&b=2": [],
        }
        with Site({}) as closed:
            pages["/"].append(f"{closed.url}/")
        with Site(pages) as site:
            found, tally = crawl(
                site, tmp_path, allowed_domains=["127.0.0.1", "127.0.0.2", "localhost"], max_page_bytes=1_000_000
            )
        assert not inner.hits, "a private host was asked that is not allowed by name"
    assert set(found) == {"/", "/cycle", "/zipped", "/latin", "/shaky", "/here", "/refresh", "/fresh", "/?b=2&a=1"}
    assert found["/zipped"] == "<html><p>It was zipped.</p></html>"
    assert found["/latin"] == "<html><p>déjà vu"
    assert tally.dropped == {
        "robots.txt": 1,
        "too large": 2,
        "not HTML": 2,
        "HTTP 404": 2,
        "private address": 2,
        "connection refused": 1,
        "redirect loop": 3,
        "too many redirects": 1,
    }
    assert examples(tally, "too large") == {f"{site.url}/bomb", f"{site.url}/endless"}
    assert examples(tally, "not HTML") == {f"{site.url}/picture", f"{site.url}/unnamed"}
    assert examples(tally, "HTTP 404") == {f"{site.url}/gone", f"{site.url}/down"}
    assert examples(tally, "redirect loop") == {f"{site.url}/{name}" for name in ("loop-a", "loop-b", "self")}
    assert examples(tally, "private address") == {
        f"{inner.url}/secret",
        inner.url.replace("127.0.0.2", "localhost") + "/",
    }
    assert tally.counts["links to another site"] == 1
    assert tally.counts["pages fetched"] == len(found)
    assert "/forbidden/page" not in site.hits
    assert max(Counter(site.hits).values()) == 2
    assert [path for path, times in Counter(site.hits).items() if times == 2] == ["/shaky"]


TREE = {f"/{n}": [f"/{m}" for m in (2 * n, 2 * n + 1, n // 2) if 0 < m < 64] for n in range(1, 64)} | {"/": ["/1"]}


def test_depth_is_the_length_of_the_shortest_way(tmp_path):
    """/far is three links away along the quick pages, and one from a page that is slow to answer."""

    def slow(handler):
        time.sleep(0.5)
        handler.answer(200, b'<html><a href="/far">far</a></html>')

    pages = {"/": ["/quick", "/slow"], "/quick": ["/quicker"], "/quicker": ["/far"], "/slow": slow, "/far": ["/end"]}
    with Site({**pages, "/end": ["/beyond"], "/beyond": []}) as site:
        found, tally = crawl(site, tmp_path, max_depth=3)
    assert set(found) == {"/", "/quick", "/quicker", "/slow", "/far", "/end"}
    assert tally.counts["links beyond max_depth"] == 1
    assert not tally.dropped


def test_page_limit_and_files_are_exact_and_a_higher_limit_goes_on(tmp_path):
    with Site(TREE) as site:
        found, tally = crawl(site, tmp_path, max_pages=23, pages_per_file=10)
        assert len(found) == 23
        assert tally.counts["pages found but left at max_pages"] > 0
        assert [path.name for path in sorted(tmp_path.glob("*.gz"))] == [f"pages-{n:06}.warc.gz" for n in range(3)]
        more, tally = crawl(site, tmp_path, pages_per_file=10)
        assert set(more) == set(TREE)
        assert found.items() <= more.items()
        assert not tally.counts["pages found but left at max_pages"]
        again, same = crawl(site, tmp_path, pages_per_file=10)  # a complete crawl asks for nothing more
        assert again == more
        assert same.to_dict() == tally.to_dict()
    hits = Counter(path for path in site.hits if path != "/robots.txt")
    assert set(hits.values()) == {1}


RUN = """
import json, sys
from pathlib import Path
from torchloom_corpus.sources.configs import CrawlConfig
from torchloom_corpus.sources.crawl import Crawl
from torchloom_corpus.tally import StepTally
Crawl(CrawlConfig(**json.loads(sys.argv[1]))).prepare(Path(sys.argv[2]), StepTally("crawl"))
"""


def start(site, folder, **fields):
    config = json.dumps(dataclasses.asdict(settings(site, **fields)))
    return subprocess.Popen([sys.executable, "-c", RUN, config, str(folder)], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_crawl_that_is_ended_goes_on_where_it_was(tmp_path, how):
    """The process that waits is ended; the crawler, which is its child, must end by itself."""
    size = len(TREE)
    with Site(TREE, pause=0.02) as site:
        process = start(site, tmp_path, concurrency=4, pages_per_file=7)
        deadline = time.monotonic() + 30
        while len(site.hits) < size // 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        site.pause = 1.0  # the rest would take long enough for any machine to stop in time
        crawlers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        process.wait(timeout=20)
        _, alive = psutil.wait_procs(crawlers, timeout=20)
        assert crawlers, "nothing was started"
        assert not alive, "the crawler went on without the process that started it"
        assert len(site.hits) < size, "it was not stopped halfway"
        site.pause = 0.0
        # What a kill in the middle of a write leaves behind: half a record, and a file that nothing is known of.
        last = max(tmp_path.glob("pages-*.gz"))
        with last.open("ab") as file:
            file.write(last.read_bytes()[:40])
        last.with_name("pages-000099.warc.gz").write_bytes(b"\x1f\x8b\x08")
        found, tally = crawl(site, tmp_path, concurrency=4, pages_per_file=7)
    assert set(found) == set(TREE)
    assert not tally.dropped
    twice = [path for path, times in Counter(site.hits).items() if times > 1 and path != "/robots.txt"]
    assert len(twice) <= 4, f"{twice} were fetched again, and at most 4 were under way"
    assert not list(tmp_path.glob("pages-000099*"))


def test_a_second_crawl_in_the_same_folder_is_refused(tmp_path):
    frontier = Frontier(tmp_path / "crawl.sqlite")
    frontier.add("http://a.invalid/", 0)
    try:
        with pytest.raises(DataError, match=r"crawl\.sqlite: cannot be used \(database is locked\); is another crawl"):
            Frontier(tmp_path / "crawl.sqlite", wait=0.1)
    finally:
        frontier.close()


def test_a_pause_is_kept_and_robots_may_ask_for_a_longer_one(tmp_path):
    robots = lambda handler: handler.answer(200, b"User-agent: *\nCrawl-delay: 0.4", "text/plain")  # noqa: E731
    with Site({"/robots.txt": robots, "/": ["/a", "/b"], "/a": [], "/b": []}) as site:
        crawl(site, tmp_path, delay=0.1, autothrottle=True)
    gaps = [after - before for before, after in zip(site.starts[1:], site.starts[2:], strict=False)]
    assert len(gaps) == 2
    assert min(gaps) > 0.35, gaps


def test_a_private_seed_is_refused_whatever_it_is_called(tmp_path):
    names = ["localhost", "127.1", "2130706433", "0x7f.0.0.1", "[::1]", "[::ffff:127.0.0.1]"]
    with Site({"/": []}) as site:
        seeds = [site.url.replace("127.0.0.1", name) + "/" for name in names]
        source, tally = Crawl(settings(site, seeds=seeds, allow_private=[], retries=0)), StepTally("crawl")
        with pytest.raises(
            DataError, match=r"no page could be fetched \(private address: .*allow_private=\[localhost\]"
        ):
            source.prepare(tmp_path, tally)
    assert not site.hits
    assert tally.dropped == {"private address": len(names)}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("172.16.5.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
    ],
)
def test_what_a_public_address_is(address, public):
    from torchloom_corpus.sources.spider import is_public

    assert is_public(address) is public


def test_wrong_seeds_are_told_before_anything_is_started(tmp_path):
    with pytest.raises(DataError, match=r"source\.seeds is empty; give addresses"):
        Crawl(CrawlConfig()).prepare(tmp_path, StepTally("crawl"))
    for seed in ("docs.python.org", "file:///etc/passwd", "http://", "http://a.invalid:99999/", "http://[::1/"):
        with pytest.raises(DataError, match=r"source\.seeds: .* is no address of a web page; write it as https://"):
            Crawl(CrawlConfig(seeds=[seed])).prepare(tmp_path, StepTally("crawl"))
    assert not list(tmp_path.iterdir())


def test_a_site_that_is_not_there(tmp_path):
    with (
        Site({}) as site,
        pytest.raises(
            DataError, match=r"could be fetched \(HTTP 404: http://127.*; check source\.seeds; see .*crawl\.log"
        ),
    ):
        crawl(site, tmp_path)
