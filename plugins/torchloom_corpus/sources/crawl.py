"""Web sites, crawled into WARC files in a process of its own, since Scrapy's event loop cannot be started twice."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from torchloom.errors import DataError
from torchloom_corpus.contracts import CorpusSource, Document, StepTally
from torchloom_corpus.sources.configs import CrawlConfig
from torchloom_corpus.sources.frontier import Frontier
from torchloom_corpus.sources.warc import read_warc

DATABASE = "crawl.sqlite"
LOG = "crawl.log"
ARCHIVES = "pages-*.warc.gz"
STOPPED = 3
"""Exit status of a crawl that was stopped before its end."""


class Crawl(CorpusSource):
    """Pages that can be reached from some addresses by links.

    Args:
        config: Settings.
    """

    config: CrawlConfig

    def prepare(self, folder: Path, tally: StepTally) -> None:
        """Crawl, or go on with a crawl that was stopped or killed: pages that were fetched are not fetched again.

        Args:
            folder: Keeps the pages, and what was found and not yet fetched.
            tally: Counts pages that were not kept, and why.

        Raises:
            DataError: There are no seeds, the crawl broke off, or not a single page could be kept.
        """
        seeds = self._seeds()
        folder.mkdir(parents=True, exist_ok=True)
        frontier = Frontier(folder / DATABASE, self.config.max_pages)
        for seed in seeds:
            frontier.add(seed, 0)
        complete = frontier.exhausted
        frontier.close()
        if not complete:
            self._crawl(folder)
        frontier = Frontier(folder / DATABASE)
        try:
            failed: dict[str, str] = {}
            for reason, url in frontier.failures():
                tally.drop(reason, example=url, size=0)
                failed.setdefault(reason, url)
            for name, number in frontier.counts().items():
                tally.count(name, number)
            tally.count("redirects", frontier.redirects())
            tally.count("pages fetched", frontier.kept)
            tally.count("pages found but left at max_pages", frontier.waiting)
            kept = frontier.kept
        finally:
            frontier.close()
        if not kept:
            causes = "; ".join(f"{reason}: {url}" for reason, url in failed.items())
            mend = (
                f"allow it by source.allow_private=[{urlsplit(failed['private address']).hostname}]"
                if "private address" in failed
                else "check source.seeds"
            )
            raise DataError(f"{', '.join(seeds)}: no page could be fetched ({causes}); {mend}; see {folder / LOG}")

    def _seeds(self) -> list[str]:
        if not self.config.seeds:
            raise DataError(
                "source.seeds is empty; give addresses to begin at, such as source.seeds=[https://docs.python.org]"
            )
        for seed in self.config.seeds:
            try:
                parts = urlsplit(seed)
                usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
            except ValueError:
                usable = False
            if not usable:
                raise DataError(f"source.seeds: {seed!r} is no address of a web page; write it as https://host/path")
        return self.config.seeds

    def _crawl(self, folder: Path) -> None:
        job = {"folder": str(folder), "config": dataclasses.asdict(self.config)}
        command = [sys.executable, "-c", "from torchloom_corpus.sources.spider import main; main()"]
        # While its standard input stays open the crawler knows that this process lives.
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            process.wait()
        except BrokenPipeError:
            process.wait()
        except BaseException:  # Ctrl-C reaches the crawler too, which needs a moment for the pages under way
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        finally:
            process.stdin.close()
        if process.returncode:
            log = folder / LOG
            cause = "it was stopped" if process.returncode == STOPPED else f"exit status {process.returncode}"
            raise DataError(f"the crawl is not complete: {cause}; see {log}; the same command goes on with it")

    def units(self, folder: Path) -> list[str]:
        """Return the archives that pages were kept in.

        Args:
            folder: The folder that `prepare` filled.

        Raises:
            DataError: There are none.
        """
        archives = sorted(map(str, folder.glob(ARCHIVES)))
        if not archives:
            raise DataError(f"{folder}: holds no pages; crawl again")
        return archives

    def read(self, unit: str, tally: StepTally) -> Iterator[Document]:
        """Read the pages of an archive.

        Args:
            unit: One of `units`.
            tally: Counts damaged records.
        """
        path = Path(unit)
        try:
            with path.open("rb") as file:
                yield from read_warc(path.name, file, self.config.max_page_bytes, tally)
        except OSError as error:
            tally.drop("unreadable file", example=f"{unit}: {error.strerror}")
