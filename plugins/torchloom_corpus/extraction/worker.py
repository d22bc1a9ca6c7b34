"""A process that extracts pages one behind the other, so that a page which hangs or fills memory ends it alone.

It reads pickles from its standard input and answers on its standard output; it ends with its input, and at once by a
signal when a page has used up its time. A process a page would cost a thousand times as much.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from torchloom_corpus.extraction import pages
from torchloom_corpus.extraction.configs import ExtractionConfig

EXTRACTORS: dict[str, Callable[[str, str, Any], pages.Page]] = {
    "plain_html": pages.plain_html,
    "trafilatura": pages.trafilatura,
}


def serve() -> None:
    """Answer until there is no more input."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not reach the answers
    logging.disable(logging.CRITICAL)
    name, config = pickle.load(requests)
    limit = config.memory_mb * 2**20
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _extract(name, "<html><body><p>Load whatever is loaded late.</p></body></html>", "", config)
    answer: pages.Page | str = ""
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            html, url = pickle.load(requests)
        except EOFError:
            return
        # The kernel ends the process, whatever it hangs in.
        signal.setitimer(signal.ITIMER_PROF, config.timeout)
        answer = _extract(name, html, url, config)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _extract(name: str, html: str, url: str, config: ExtractionConfig) -> pages.Page | str:
    """Return what is in a page, or why there is nothing."""
    try:
        return EXTRACTORS[name](html, url, config)
    except pages.BrokenPageError:
        return "broken HTML"
    except MemoryError:
        return "out of memory"
    except RecursionError:
        return "nested too deep"
    except Exception:  # no page may end a build, whatever its parser raises
        return "extractor failed"


if __name__ == "__main__":
    serve()
