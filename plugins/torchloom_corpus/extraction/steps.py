"""The steps that turn HTML into text, each with a process beside it that does the work."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import weakref
from typing import IO, ClassVar

from torchloom.errors import DataError
from torchloom_corpus.contracts import HTML, CorpusStep, Document, StepTally
from torchloom_corpus.extraction.configs import ExtractionConfig
from torchloom_corpus.extraction.pages import Page


class HtmlStep(CorpusStep):
    """Base of the extraction steps.

    Attributes:
        extractor: Its name in `torchloom_corpus.extraction.worker`.
    """

    takes: ClassVar[str] = "html"
    extractor: ClassVar[str]
    config: ExtractionConfig

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Get ready."""
        super().start(tally, rank, world)
        self._worker: Worker | None = None

    def process(self, document: Document) -> str | None:
        """Put a page's text in its place, with what it says of itself where its source said nothing.

        Raises:
            DataError: The process that extracts cannot be started.
        """
        metadata = document.metadata
        if metadata.get("content_type") != HTML:
            return None
        if not document.text.strip():
            return "empty page"
        if len(document.text) > self.config.max_characters:
            return "page too long"
        answer = self._extract(document.text, str(metadata.get("url") or ""))
        if isinstance(answer, str):
            return answer
        if not answer.text.strip():
            return "no text found"
        document.text = answer.text
        del metadata["content_type"]
        for key in ("title", "date", "url", "language"):
            value = getattr(answer, key)
            if value and not metadata.get(key):
                metadata[key] = value
                self.tally.count(f"found {key}")
        return None

    def _extract(self, html: str, url: str) -> Page | str:
        for last in (False, True):
            if self._worker is None:
                self._worker = Worker(self.extractor, self.config)
            answer = self._worker.ask(html, url)
            if answer is not None:
                return answer
            code = self._worker.close()
            self._worker = None
            if code == -signal.SIGPROF:
                return "timeout"
            # Killed from outside, as by a machine short of memory: once may have been another process's fault.
            if code != -signal.SIGKILL:
                break
            if last:
                return "out of memory"
        return "extractor crashed"


class Trafilatura(HtmlStep):
    """The main text of a page, as trafilatura finds it, less its headline, which is metadata."""

    extractor: ClassVar[str] = "trafilatura"


class PlainHtml(HtmlStep):
    """All text of a page."""

    extractor: ClassVar[str] = "plain_html"


class Worker:
    """The process beside a step.

    Args:
        extractor: What it runs.
        config: Options and limits.

    Raises:
        DataError: It does not start.
    """

    def __init__(self, extractor: str, config: ExtractionConfig) -> None:
        command = [sys.executable, "-P", "-m", "torchloom_corpus.extraction.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._close = weakref.finalize(self, _end, self._process)
        if self._exchange((extractor, config)) is None:
            code = self.close()
            raise DataError(
                f"{extractor}: the process that extracts text does not start (exit status {code}); "
                f"its own message stands above. Try `{' '.join(command)} < /dev/null`, or raise memory_mb"
            )

    def ask(self, html: str, url: str) -> Page | str | None:
        """Return what is in a page, or why there is nothing, or None if the process ended over it."""
        return self._exchange((html, url))

    def close(self) -> int:
        """End the process; returns its exit status, minus the number of the signal that ended it."""
        self._close()
        return self._process.wait()

    def _exchange(self, message: object) -> Page | str | None:
        requests, answers = _pipes(self._process)
        try:
            pickle.dump(message, requests)
            requests.flush()
            answer: Page | str = pickle.load(answers)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return answer


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    requests, answers = _pipes(process)
    with contextlib.suppress(OSError):  # what was not sent yet cannot be sent to a process that has ended
        requests.close()
    process.wait()
    answers.close()
