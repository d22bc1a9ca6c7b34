"""Extraction of an article's text from real pages, against trafilatura alone and two simple ways.

`TORCHLOOM_DATA=FOLDER python benchmarks/corpus_extraction.py [--laps N]` reads FOLDER/html_extraction/*/source.html and
expected.html (Mozilla readability's test pages), and prints the table.

Scores are those of https://github.com/scrapinghub/article-extraction-benchmark: precision and recall over shingles of
four words, each page counting the same; F1 is that of their means. Half of the pages, chosen by the hash of their names
before anything was tried, were held out when options were chosen. Fails if ours is worse than trafilatura alone.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import platform
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from trafilatura import extract

from torchloom_corpus.contracts import HTML, CorpusStep, Document, StepTally
from torchloom_corpus.extraction import pages
from torchloom_corpus.extraction.configs import PlainHtmlConfig, TrafilaturaConfig
from torchloom_corpus.extraction.steps import PlainHtml, Trafilatura

Extractor = Callable[[str], str]


def through(step: CorpusStep) -> Extractor:
    step.start(StepTally("step"), 0, 1)

    def run(html: str) -> str:
        document = Document(text=html, id="page", metadata={"content_type": HTML})
        return document.text if step.process(document) is None else ""

    run("<p>Start the process.")
    return run


def paragraphs(html: str) -> str:
    return "\n".join(element.text_content() for element in pages.parse(html).iter("p"))


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def score(expected: str, found: str) -> tuple[float, float]:
    true, ours = shingles(expected), shingles(found)
    common = (true & ours).total()
    return common / ours.total() if ours else 0.0, common / true.total()


def means(scores: list[tuple[float, float]]) -> tuple[float, float, float]:
    precision, recall = (statistics.mean(column) for column in zip(*scores, strict=True))
    return precision, recall, 2 * precision * recall / (precision + recall)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laps", type=int, default=5, help="times each page is timed, of which the quickest counts")
    laps = parser.parse_args().laps
    folder = os.environ.get("TORCHLOOM_DATA")
    if not folder:
        sys.exit("set TORCHLOOM_DATA to the folder that holds html_extraction")
    logging.disable(logging.CRITICAL)
    cases = []
    for source in sorted(Path(folder, "html_extraction").glob("*/source.html")):
        expected = source.with_name("expected.html").read_text("utf-8", "replace")
        held_out = hashlib.sha256(source.parent.name.encode()).digest()[0] % 2 == 1
        text = pages.plain_html(expected, "", PlainHtmlConfig()).text
        cases.append((source.read_text("utf-8", "replace"), text, held_out))

    extractors: dict[str, Extractor] = {
        "`plain_html` (tags stripped)": through(PlainHtml(PlainHtmlConfig())),
        "text of all `<p>`": paragraphs,
        "trafilatura alone, its defaults": lambda html: extract(html) or "",
        "trafilatura alone, without comments": lambda html: extract(html, include_comments=False) or "",
        "`trafilatura`": through(Trafilatura(TrafilaturaConfig())),
        "`trafilatura`, no process beside": lambda html: pages.trafilatura(html, "", TrafilaturaConfig()).text,
        "`trafilatura`, focus=recall": through(Trafilatura(TrafilaturaConfig(focus="recall"))),
        "`trafilatura`, focus=precision": through(Trafilatura(TrafilaturaConfig(focus="precision"))),
        "`trafilatura`, include_captions=true": through(Trafilatura(TrafilaturaConfig(include_captions=True))),
    }
    results = {
        name: [score(text, extractor(html)) for html, text, _ in cases] for name, extractor in extractors.items()
    }
    quickest = {name: [float("inf")] * len(cases) for name in extractors}
    for _ in range(laps):
        for name, extractor in extractors.items():
            for number, (html, _, _) in enumerate(cases):
                start = time.perf_counter()
                extractor(html)
                quickest[name][number] = min(quickest[name][number], time.perf_counter() - start)

    held = [number for number, case in enumerate(cases) if case[2]]
    print("# Extraction of article text\n")
    print(
        f"`python benchmarks/corpus_extraction.py --laps {laps}`: {len(cases)} pages, {len(held)} of them held out, "
        f"trafilatura {version('trafilatura')}, lxml {version('lxml')}, Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} cores.\n"
    )
    print("| extractor | precision | recall | F1 | F1, held-out pages | F1, the others | ms a page |")
    print("|---|---|---|---|---|---|---|")
    for name, scores in results.items():
        precision, recall, f1 = means(scores)
        parts = [means([s for n, s in enumerate(scores) if (n in held) == wanted])[2] for wanted in (True, False)]
        milliseconds = 1000 * statistics.mean(quickest[name])
        print(
            f"| {name} | {precision:.3f} | {recall:.3f} | {f1:.4f} | {parts[0]:.4f} | {parts[1]:.4f} "
            f"| {milliseconds:.1f} |"
        )
    alone = max(means(scores)[2] for name, scores in results.items() if "alone" in name)
    return 0 if means(results["`trafilatura`"])[2] >= alone else 1


if __name__ == "__main__":
    sys.exit(main())
