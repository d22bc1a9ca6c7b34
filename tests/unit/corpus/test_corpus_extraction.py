"""Extraction: quality against trafilatura alone on real pages, bad pages, limits, and fuzzing."""

import os
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchloom_corpus.contracts import HTML, Document, StepTally
from torchloom_corpus.extraction import pages, steps
from torchloom_corpus.extraction.configs import PlainHtmlConfig, TrafilaturaConfig

BODY = "The river rose over night, and by the morning the bridge was gone. Nobody had seen it fall. " * 4
PAGE = f"""<?xml version="1.0" encoding="latin-1"?><!DOCTYPE html><html lang="en-GB"><head>
<title>The bridge is gone - The Daily Example</title><meta property="og:title" content="The bridge is gone">
<meta property="article:published_time" content="2021-03-04T10:00:00Z">
<link rel="canonical" href="https://example.org/news/bridge"><style>p {{color: red}}</style></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/a">About</a></li></ul></nav>
<article><h1>The bridge is gone</h1><p>{BODY}</p><p>A caf\u00e9 stays <b>o</b>pen. {BODY}</p>
<figure><img src="a.jpg"><figcaption>What is left of the bridge.</figcaption></figure>
<pre>if x:
    y()</pre></article><script>var tracker = 1;</script>
<div class="comments" id="comments"><p>First! I said so years ago, and nobody would listen to me, as ever.</p></div>
<footer>All rights reserved</footer></body></html>"""


def started(cls=steps.Trafilatura, **fields):
    config = TrafilaturaConfig if cls is steps.Trafilatura else PlainHtmlConfig
    step = cls(config(**fields))
    step.start(StepTally(cls.extractor), 0, 1)
    return step


def run(step, html, **metadata):
    document = Document(text=html, id="a", metadata={"content_type": HTML, **metadata})
    return step.process(document), document


@pytest.fixture(scope="module")
def trafilatura_step():
    return started()


@pytest.fixture(scope="module")
def plain_step():
    return started(steps.PlainHtml)


def test_a_page_becomes_its_text_with_its_metadata(trafilatura_step):
    reason, document = run(trafilatura_step, PAGE)
    assert reason is None
    assert document.text.startswith("The river rose")
    assert "A café stays open." in document.text
    for outside in ("Home", "tracker", "First!", "All rights", "The bridge is gone", "What is left"):
        assert outside not in document.text
    assert document.metadata == {
        "title": "The bridge is gone",
        "date": "2021-03-04",
        "url": "https://example.org/news/bridge",
        "language": "en",
    }


def test_options_of_trafilatura_are_obeyed():
    step = started(headline=True, include_captions=True, include_comments=True)
    _, document = run(step, PAGE)
    for inside in ("The bridge is gone", "What is left of the bridge.", "First!"):
        assert inside in document.text


def test_what_the_source_knows_of_a_page_is_not_overwritten(trafilatura_step):
    known = {"url": "https://mirror.example/1", "title": "T", "language": "fr", "date": "1999"}
    _, document = run(trafilatura_step, PAGE, **known)
    assert document.metadata == known


def test_plain_html_takes_all_text_and_keeps_blocks_and_code_apart(plain_step):
    reason, document = run(plain_step, PAGE)
    assert reason is None
    lines = document.text.split("\n")
    assert lines[:3] == ["Home", "About", "The bridge is gone"]
    assert lines[-1] == "All rights reserved"
    assert "if x:\n    y()" in document.text
    assert "A café stays open. The river" in document.text
    assert "tracker" not in document.text
    assert "color" not in document.text
    assert document.metadata["title"] == "The bridge is gone - The Daily Example"


def test_plain_text_passes_untouched(trafilatura_step):
    document = Document(text="a <b>c</b>\x00", id="a")
    assert trafilatura_step.process(document) is None
    assert document == Document(text="a <b>c</b>\x00", id="a")


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("", "empty page"),
        (" \n\t", "empty page"),
        ("<!-- nothing -->", "broken HTML"),
        ("\x00\x01", "broken HTML"),
        ("<html><body><script>1</script></body></html>", "no text found"),
        ("<div>" * 50_000 + "lost" + "</div>" * 50_000, "no text found"),
        ("x" * 10_000_001, "page too long"),
    ],
    ids=["empty", "blank", "comment", "control", "script", "nested", "long"],
)
def test_a_page_without_text_is_dropped_with_a_reason(html, reason, trafilatura_step, plain_step):
    for step in (trafilatura_step, plain_step):
        found, document = run(step, html)
        assert found == reason
        assert document.metadata["content_type"] == HTML


@pytest.mark.parametrize(
    "html",
    [
        f"<p>{BODY}",
        f"<html><body><p>{BODY}\x00\ud800\udfff\ufffe</p><p>{BODY}</html>",
        f"<html><body>{'<font>' * 300}<p>{BODY}</p>",
        f"<html><body {'x' * 100_000}='{'y' * 500_000}'><p>{BODY}</p>",
        f"<html><<<p class=>{BODY}</b></table><td></html></html><!--",
        BODY,
    ],
    ids=["fragment", "surrogates", "nested", "attribute", "broken", "text"],
)
def test_broken_pages_still_give_their_text(html, trafilatura_step, plain_step):
    for step in (trafilatura_step, plain_step):
        reason, document = run(step, html)
        assert reason is None
        assert BODY.strip() in document.text
        document.text.encode("utf-8")


def test_a_page_that_takes_too_long_is_dropped_and_the_next_one_is_read():
    step = started(timeout=0.5)
    assert run(step, "<html><body>" + "<p>A paragraph of text.</p>" * 100_000)[0] == "timeout"
    reason, document = run(step, PAGE)
    assert reason is None
    assert document.text.startswith("The river rose")


def test_a_page_that_takes_too_much_memory_is_dropped_and_the_next_one_is_read():
    step = started(steps.PlainHtml, memory_mb=512, max_characters=10**9)
    assert run(step, "<i>x</i>" * 5_000_000)[0] in ("out of memory", "broken HTML", "extractor crashed")
    assert run(step, PAGE)[0] is None


def test_a_process_killed_from_outside_costs_no_page():
    step = started(steps.PlainHtml)
    assert run(step, PAGE)[0] is None
    step._worker._process.kill()
    assert run(step, PAGE)[0] is None


def test_the_process_ends_with_its_step():
    step = started(steps.PlainHtml)
    run(step, PAGE)
    process = step._worker._process
    del step
    assert process.returncode == 0


def test_deduplication_does_not_depend_on_the_pages_before():
    step = started(deduplicate=True)
    assert len({run(step, PAGE)[1].text for _ in range(5)}) == 1


HTML_PIECES = [
    "<",
    ">",
    "</div>",
    "<p>",
    "<table><tr>",
    "<!--",
    "<![CDATA[",
    "&#0;",
    "&#xD800;",
    "\x00",
    "\ud800",
    "<a href='",
    '"',
]
HTML_PIECES += [
    "<svg>",
    "<template>",
    "<?xml encoding='x'?>",
    "<br" * 50,
    "<div>" * 300,
    "é" * 100,
    '<html lang="\ud800">',
]
HTML_PIECES += [
    '<script type="application/ld+json">{"@type": ["Article"], "articleBody": 3}</script>',
    "<title>",
    "<base href=':'>",
]
HTML_PIECES += [
    '<meta property="og:url" content="http://[::1"><link rel=canonical href="//[">',
    "<figure><figcaption>a",
]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_page_makes_an_extractor_fail(data, trafilatura_step, plain_step):
    html = data.draw(st.sampled_from(real_pages()))
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(html)))
        end = data.draw(st.integers(start, min(len(html), start + 400)))
        piece = data.draw(st.one_of(st.sampled_from(HTML_PIECES), st.text(st.characters(), max_size=20)))
        html = html[:start] + piece + html[end:]
    if data.draw(st.booleans()):
        html = html[: data.draw(st.integers(0, len(html)))]
    for step in (trafilatura_step, plain_step):
        reason, document = run(step, html)
        assert reason in (None, "empty page", "broken HTML", "no text found")
        if reason is None:
            "".join([document.text, *document.metadata.values()]).encode("utf-8")


def real_pages():
    """Return this file's page, and the smaller ones of the real pages where they are at hand."""
    folder = os.environ.get("TORCHLOOM_DATA")
    files = sorted(Path(folder, "html_extraction").glob("*/source.html")) if folder else []
    return [PAGE, *(path.read_text("utf-8", "replace") for path in files if path.stat().st_size < 40_000)]


def shingles(text):
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def f1(pairs):
    precisions, recalls = [], []
    for expected, found in pairs:
        expected, found = shingles(expected), shingles(found)
        common = (expected & found).total()
        precisions.append(common / found.total() if found else 0.0)
        recalls.append(common / expected.total())
    precision, recall = statistics.mean(precisions), statistics.mean(recalls)
    return 2 * precision * recall / (precision + recall)


def test_real_pages_are_extracted_no_worse_than_by_trafilatura_alone(trafilatura_step, plain_step):
    folder = os.environ.get("TORCHLOOM_DATA")
    if not folder:
        pytest.skip("TORCHLOOM_DATA is not set")
    from trafilatura import extract

    ours, plain, alone, without_comments = [], [], [], []
    for path in sorted(Path(folder, "html_extraction").glob("*/source.html")):
        html = path.read_text("utf-8", "replace")
        expected = pages.plain_html(
            path.with_name("expected.html").read_text("utf-8", "replace"), "", PlainHtmlConfig()
        )
        ours.append((expected.text, run(trafilatura_step, html)[1].text))
        plain.append((expected.text, run(plain_step, html)[1].text))
        alone.append((expected.text, extract(html) or ""))
        without_comments.append((expected.text, extract(html, include_comments=False) or ""))
    assert len(ours) == 56
    assert f1(ours) > f1(without_comments) > f1(alone) > f1(plain)
    assert f1(ours) > 0.95
