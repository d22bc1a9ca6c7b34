"""What a reader finds on the page."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from torchloom.errors import ConfigError
from torchloom_report import plugin
from torchloom_report.command import run as run_command
from torchloom_report.configs import ReportConfig
from torchloom_report.page import render, write_report
from torchloom_report.reading import Image, Run, Sweep, Text

VOID = {"meta", "link", "img", "wbr", "br"}


class Page(HTMLParser):
    """Elements and text of a page, checked to nest as they should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self.text += data
        if "tr" in self._open and self.rows[-1]:
            self.rows[-1][-1] += data

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attrs)) for tag, attrs in self.elements]

    def having(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]

    def cells(self, row: int) -> list[str]:
        return [" ".join(cell.split()) for cell in self.rows[row]]


@pytest.fixture(scope="module")
def sweep_html(whole_sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(whole_sweep, tmp_path_factory.mktemp("page") / "page.html").read_text("utf-8")


@pytest.fixture(scope="module")
def sweep_page(sweep_html: str) -> Page:
    return Page(sweep_html)


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text("utf-8"))


def test_results_table_compares_the_jobs_and_tells_failures_and_notes(sweep_page: Page) -> None:
    page = sweep_page
    assert page.cells(0) == [
        "Job", "Name", "Overrides", "Status", "test/loss", "test/accuracy", "test/perplexity",
        "val/loss", "Steps", "Seconds", "Speed", "Parameters", "Seed",
    ]  # fmt: skip
    limit = "trainer.max_steps=100"
    assert page.cells(1) == [
        "0", "llm", f"experiment=llm{limit}", "finished", "1.812", "–", "6.125", "1.85",
        "1,000", "42.12", "15,360 tokens/s", "809,856", "0",
    ]  # fmt: skip
    assert page.cells(2)[4:8] == ["0.0443", "0.9833", "–", "–"]
    assert page.cells(3)[3] == "interrupted"
    assert page.cells(4) == ["", "Cause: killed by signal 9"]
    assert page.cells(6)[3] == "failed"
    assert page.cells(6)[-2] == "21,140,042 (6,425,354 trainable)"
    assert page.cells(7) == ["", "Cause: DataError: vgg.pt: no such file base weights: random"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("", ""),
        ("lr: too small\n    give more", "lr: too small give more"),
        ("Traceback (most recent call last):\n  File 'x.py'\nValueError: no\n", "ValueError: no"),
        ("x" * 400, "x" * 300 + " ..."),
    ],
)
def test_cause_is_one_line_that_fits_the_table(error: str, cause: str) -> None:
    assert Run(Path("x"), 0, "x", "failed", error=error).cause == cause


def test_every_table_header_has_a_scope_and_every_picture_a_description(sweep_page: Page) -> None:
    page = sweep_page
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.elements if tag == "th")
    pictures = [attrs for tag, attrs in page.elements if tag in ("img", "svg")]
    assert len(pictures) > 5
    assert all(attrs.get("alt") or attrs.get("aria-label") for attrs in pictures)


def test_links_and_ids_meet_each_other_once(sweep_page: Page, sweep_html: str) -> None:
    page = sweep_page
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    links = page.having("href") + page.having("xlink:href")
    assert {f"#job-{number}" for number in range(5)} <= set(links)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    clips = re.findall(r"url\(#([^)]+)\)", sweep_html)
    assert clips
    assert set(clips) <= set(ids)


def test_page_refers_to_nothing_outside_itself(sweep_page: Page, sweep_html: str) -> None:
    page = sweep_page
    references = [link for name in ("src", "href", "xlink:href", "srcset", "data") for link in page.having(name)]
    assert references
    assert all(link.startswith(("#", "data:")) for link in references)
    assert "script" not in {tag for tag, _ in page.elements}
    assert not re.search(r"@import|url\((?!#)", sweep_html)


def test_figures_follow_the_metrics_of_each_run(sweep_page: Page, sweep_html: str) -> None:
    page = sweep_page
    alts = page.having("aria-label")
    adversarial = next(alt for alt in alts if alt.startswith("d_loss and g_loss against step."))
    assert "train/d_loss: 0.689 at step 5, 0.511 at step 895, lowest 0.511, highest 0.689." in adversarial
    assert "train/g_loss: 0.7025 at step 5, 1.147 at step 895" in adversarial
    assert sum(alt.startswith("loss against step.") for alt in alts) == 3
    assert sum(alt.startswith("accuracy against step.") for alt in alts) == 3
    assert not any(alt.startswith("lr ") for alt in alts), "a learning rate that never changes is no figure"
    captions = re.findall(r"<b>loss</b>( \(log scale\))?", sweep_html)
    assert captions == ["", " (log scale)", ""], "only the cnn's loss spans more than a factor of 20"


def test_samples_are_the_first_and_the_last_by_number(sweep: Path) -> None:
    (sweep / "3" / "samples" / "step-100.png").write_bytes((sweep / "3" / "samples" / "step-9.png").read_bytes())
    page = page_of(sweep)
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert [(image["width"], image["height"]) for image in images] == [("232", "232")] * 2
    assert [str(image["alt"]).rpartition(" ")[2] for image in images] == ["step-9.png", "step-900.png"]
    for image in images:
        file = sweep / "3" / "samples" / str(image["alt"]).rpartition(" ")[2]
        assert base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) == file.read_bytes()
    assert "What light through yonder window breaks?" in page.text
    assert "xq;zz <b>&nbsp; kk" in page.text


def test_confusion_matrix_has_class_names_and_counts(cnn: Path) -> None:
    page = page_of(cnn)
    assert page.cells(0)[1:] == [str(digit) for digit in range(10)]
    assert page.cells(5) == ["4", "0", "0", "0", "0", "18", "0", "0", "0", "0", "2"]
    assert sum((attrs.get("class") or "").startswith("right") for _, attrs in page.elements) == 10


def test_large_confusion_matrix_is_a_picture_with_its_worst_mistakes(
    tmp_path: Path, make_run: Callable[..., Path], make_summary: Callable[..., dict[str, Any]]
) -> None:
    counts = [[5 if true == guess else 0 for guess in range(40)] for true in range(40)]
    counts[7][3], counts[1][2] = 9, 4
    tables = {"test/confusion_matrix": counts}
    page = page_of(make_run(tmp_path / "run", make_summary("big", tables=tables, classes=[f"k{n}" for n in range(40)])))
    assert page.rows[1:] == [["k7", "k3", "9"], ["k1", "k2", "4"]]
    assert "Confusion matrix of 40 classes; 200 of 213 are right." in page.having("aria-label")


def test_killed_run_shows_what_there_is_and_says_what_is_missing(sweep: Path) -> None:
    page = page_of(sweep / "2")
    assert "The summary says that it is running: it still goes on, or it was killed." in page.text
    assert "The last line of metrics.csv is cut short and left out." in page.text
    assert "This run has no samples and no confusion matrix." in page.text
    assert "at step 300" in next(alt for alt in page.having("aria-label") if alt.startswith("loss"))
    assert "hidden_channels: [32, 64, 64]" in page.text


def test_sweep_that_was_killed_before_its_summary_shows_its_jobs(sweep: Path) -> None:
    (sweep / "summary.json").unlink()
    (sweep / "1" / "summary.json").write_text('{"status": "finis')
    (sweep / "3" / "samples" / "step-900.png").write_bytes(
        (sweep / "3" / "samples" / "step-900.png").read_bytes()[:-20]
    )
    page = page_of(sweep)
    assert [row[0].strip() for row in page.rows[1:8] if row[0].strip()] == ["0", "1", "2", "3", "4"]
    assert "There is no summary.json: the run has not ended, or was killed before it could write one." in page.text
    assert "summary.json cannot be read (Unterminated string starting at: line 1 column 12 (char 11))" in page.text
    assert "samples/step-900.png is not a whole PNG image and is left out." in page.text
    assert page.cells(2)[:4] == ["1", "1", "–", "unknown"]


def test_job_without_a_folder_is_told_by_the_sweep_alone(tmp_path: Path) -> None:
    job = {
        "number": 7,
        "folder": "/elsewhere/7",
        "overrides": ["dataset=x"],
        "name": "x",
        "status": "failed",
        "error": "no x",
    }
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished", "jobs": [job]}))
    page = page_of(tmp_path)
    assert page.cells(1)[:4] == ["7", "x", "dataset=x", "failed"]
    assert page.cells(2)[1] == "Cause: no x"
    assert "It has no folder: the job did not get as far as making one." in page.text


def test_summary_cannot_lead_out_of_the_sweeps_folder(
    tmp_path: Path, make_run: Callable[..., Path], make_summary: Callable[..., dict[str, Any]]
) -> None:
    make_run(tmp_path / "private", make_summary("secret"))
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "summary.json").write_text(json.dumps({"jobs": [{"number": 0, "folder": "../private", "name": "a"}]}))
    page = page_of(sweep)
    assert "secret" not in page.text
    assert "batch_size" not in page.text


@pytest.mark.parametrize("value", [None, [], "text", 3, {"a": [1]}, [[1, 2], [3]], float("nan"), True])
def test_values_of_another_type_leave_a_page(tmp_path: Path, value: Any) -> None:
    keys = ["status", "error", "name", "components", "metrics", "tables", "classes", "steps", "seconds", "throughput"]
    keys += ["parameters", "seed", "versions", "plugins", "notes", "started", "job", "overrides", "machine"]
    record = dict.fromkeys(keys, value)
    (tmp_path / "summary.json").write_text(json.dumps(record | {"tables": {"test/confusion_matrix": value}}))
    assert "Run: " in page_of(tmp_path).text
    (tmp_path / "summary.json").write_text(json.dumps({"jobs": [record, value], "status": value}))
    assert len(page_of(tmp_path).rows) >= 3


NASTY = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        "</pre><script>alert(1)</script>",
        '" onload="alert(1)',
        "{{ 7 * 7 }}",
        "$\\frac{1}{0}$",
        "&amp;<b>",
        "\ud800",
        "a\0b",
    ]
)


@functools.cache
def page_of_harmless_texts() -> Page:
    return page_of_texts(Path("x"), ["x"] * 12)


def page_of_texts(folder: Path, words: list[str]) -> Page:
    a, b, c, d, e, f, g, h, i, j, k, m = words
    run = Run(
        folder=folder, number=0, name=a, status=b, error=c, overrides=[d], started=e, machine=f,
        metrics={"test/" + g: 1.0}, notes={h: i}, classes=[j, k], confusion=[[1, 0], [0, 1]],
        curves={m: {1.0: 1.0, 2.0: 2.0}}, config=c, gaps=[m], versions={a: b}, components={c: d}, checkpoint=e, seed=f,
        texts=[Text(g, h, 0)], images=[Image(i, b"", 1, 1)],
    )  # fmt: skip
    return Page(render(Sweep(folder, b, [run], [c])).encode("utf-8", "replace").decode("utf-8"))


@settings(max_examples=20, deadline=None)
@given(st.lists(NASTY, min_size=12, max_size=12))
def test_no_text_from_a_run_becomes_markup(texts: list[str]) -> None:
    """The page of any texts has the elements and attributes of the page of harmless ones, and shows each text."""
    # A slash or a status word chooses elements and classes, and a blank text leaves some out.
    words = [re.sub(r"/|^(failed|finished|unknown)$", "x", text) if text.strip() else "x" for text in texts]
    nasty = page_of_texts(Path("x"), words)
    assert nasty.shape == page_of_harmless_texts().shape
    for word in words:
        assert word.encode("utf-8", "replace").decode() in nasty.text


def test_hook_writes_for_sweeps_and_lone_runs_but_not_for_jobs(sweep: Path, tmp_path: Path) -> None:
    job = sweep / "0"
    summary = json.loads((job / "summary.json").read_text())
    plugin.torchloom_run_finished(job, summary)
    assert not (job / "report.html").exists()
    plugin.torchloom_run_finished(job, summary | {"job": None, "name": "from the hook"})
    assert "from the hook" in (job / "report.html").read_text("utf-8")
    plugin.torchloom_run_finished(sweep, json.loads((sweep / "summary.json").read_text()))
    assert "Sweep: llm, cnn, lstm, gan, vgg16" in (sweep / "report.html").read_text("utf-8")


def test_command_writes_where_it_is_told_and_prints_the_path(cnn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cnn.parent / "new" / "page.html"
    config = OmegaConf.structured(ReportConfig(folder=str(cnn), out=str(out)))
    assert run_command(config) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "0.9833" in out.read_text("utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~umask


def test_command_without_a_folder_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError) as caught:
        run_command(OmegaConf.structured(ReportConfig))
    assert str(caught.value) == "folder: not given\n    name a run's or a sweep's folder: torchloom report FOLDER"


def test_folder_that_is_none_is_refused_with_a_mend(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError) as missing:
        write_report(tmp_path / "none")
    assert str(missing.value) == (
        f"folder: '{tmp_path / 'none'}' does not exist\n"
        "    name a run's or a sweep's folder; `torchloom train` prints it as its last line"
    )
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        write_report(file)
    with pytest.raises(ConfigError) as neither:
        write_report(tmp_path)
    assert str(neither.value) == (
        f"folder: '{tmp_path}' holds neither a run (summary.json, metrics.csv, config.yaml) nor a sweep "
        "(job folders 0, 1, 2 ...)\n    name the folder that `torchloom train` printed as its last line"
    )


def test_page_that_cannot_be_written_leaves_the_old_one(cnn: Path) -> None:
    (cnn / "summary").mkdir()
    with pytest.raises(ConfigError) as caught:
        write_report(cnn, cnn / "summary")
    assert (
        str(caught.value)
        == f"out: '{cnn / 'summary'}' is a folder\n    name a file: out={cnn / 'summary' / 'report.html'}"
    )
    with pytest.raises(
        ConfigError, match=r"cannot write .*: File exists\n    name a file that you may write: out=PATH"
    ):
        write_report(cnn, cnn / "config.yaml" / "page.html")
    assert "seed: 0" in (cnn / "config.yaml").read_text()


def test_same_run_gives_the_same_page_but_for_the_time_it_was_made(cnn: Path) -> None:
    pages = [re.sub(r"Made by torchloom, [^,]*,", "", write_report(cnn).read_text("utf-8")) for _ in range(2)]
    assert pages[0] == pages[1]


def test_declaring_the_plugin_imports_nothing_heavy_and_a_page_no_torch(cnn: Path) -> None:
    code = (
        "import sys, torchloom_report.plugin, torchloom_report.command, torchloom_report.configs\n"
        "heavy = {'matplotlib', 'jinja2', 'numpy', 'torch', 'pytorch_lightning'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "from pathlib import Path\n"
        "from torchloom_report.page import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
        "assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(cnn)], check=True, timeout=60)
