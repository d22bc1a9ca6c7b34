"""Reading metrics.csv and thinning curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchloom_report.figures import MAX_POINTS, learning_curves, thin
from torchloom_report.reading import Run, natural, read


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200), st.integers(1, 40))
def test_thinned_curve_keeps_ends_and_extremes(pattern: list[float], repeats: int) -> None:
    values = np.array(pattern * repeats)
    steps = np.arange(len(values), dtype=float) * 3
    fewer_steps, fewer = thin(steps, values)
    assert len(fewer) <= min(len(values), MAX_POINTS)
    assert (fewer_steps[0], fewer_steps[-1]) == (steps[0], steps[-1])
    assert (fewer.min(), fewer.max()) == (values.min(), values.max())
    assert (np.diff(fewer_steps) > 0).all()
    assert (values[(fewer_steps / 3).astype(int)] == fewer).all()


def test_a_long_curve_takes_no_more_room_than_a_short_one() -> None:
    noise = np.random.default_rng(0).normal(size=100_000)
    drawing = learning_curves({"train/loss": dict(enumerate(noise.tolist()))}, "a")[0]
    assert len(drawing.svg) < 60_000


@pytest.fixture
def curves_of(tmp_path: Path) -> Callable[[str], Run]:
    """Read a run whose metrics.csv holds a text."""

    def read_text(text: str) -> Run:
        (tmp_path / "metrics.csv").write_text(text, newline="")
        found = read(tmp_path)
        assert isinstance(found, Run)
        return found

    return read_text


def test_blanks_are_no_points(curves_of: Callable[[str], Run]) -> None:
    run = curves_of("epoch,step,train/loss,val/loss\r\n0,1,2.5,\r\n0,2,,2.25\r\n0,3,1.5,\r\n")
    assert run.curves == {"train/loss": {1: 2.5, 3: 1.5}, "val/loss": {2: 2.25}}


def test_step_that_stands_twice_counts_as_last_written(curves_of: Callable[[str], Run]) -> None:
    run = curves_of("epoch,step,train/loss\n0,1,3\n0,2,9\n0,3,8\n0,2,2\n0,3,1\n")
    assert list(run.curves["train/loss"].items()) == [(1, 3), (2, 2), (3, 1)]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_last_line_never_gives_a_wrong_number(curves_of: Callable[[str], Run], cut: int) -> None:
    text = "epoch,step,train/loss\n0,1,3\n0,2,1.23456\n"
    run = curves_of(text[:-cut])
    assert run.curves == {"train/loss": {1: 3}}
    assert "The last line of metrics.csv is cut short and left out." in run.gaps or text[:-cut].endswith("\n")


def test_not_a_number_and_nonsense_are_told(curves_of: Callable[[str], Run]) -> None:
    run = curves_of("epoch,step,train/loss\n0,1,3\n0,2,nan\n0,3,inf\nwhat,is,this\n0,nan,1\n0,4,1e200\n0,,7\n\n")
    assert run.curves == {"train/loss": {1: 3}}
    assert "train/loss was nan at step 2; such values are left out." in run.gaps
    assert "Lines of metrics.csv that are no numbers and are left out: 2." in run.gaps


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("", "metrics.csv has no rows yet."),
        ("epoch,st", "metrics.csv has no rows yet."),
        ("epoch,step,train/loss\n", "metrics.csv has no rows yet."),
        ("a,b\n1,2\n", "metrics.csv has no column 'step'."),
        (
            'epoch,step\n"' + "x" * 200_000 + '"\n',
            "metrics.csv cannot be read (field larger than field limit (131072)).",
        ),
    ],
)
def test_empty_files_are_told(curves_of: Callable[[str], Run], text: str, gap: str) -> None:
    run = curves_of(text)
    assert run.curves == {}
    assert gap in run.gaps


def test_training_and_validation_share_a_figure_and_keep_their_styles() -> None:
    point = {1.0: 1.0, 2.0: 0.5}
    columns = ["lr", "val/accuracy", "val/loss", "train/loss", "train/g_loss", "train/d_loss", "grad_norm", "test/loss"]
    drawings = learning_curves(dict.fromkeys(columns, point), "a")
    assert [(drawing.title, drawing.legend) for drawing in drawings] == [
        ("loss", [("val/loss", 1), ("train/loss", 0)]),
        ("g_loss and d_loss", [("train/g_loss", 0), ("train/d_loss", 1)]),
        ("accuracy", [("val/accuracy", 1)]),
        ("grad_norm", [("grad_norm", 0)]),
        ("lr", [("lr", 0)]),
    ]


@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0], [-1e30, 5.0], [1e-100, 1e100], [1e-9, 1.0], [1e100, -1e100]])
def test_any_finite_curve_is_drawn(values: list[float]) -> None:
    drawing = learning_curves({"train/loss": dict(enumerate(values))}, "a")[0]
    assert "var(--c0)" in drawing.svg
    assert drawing.log == (min(values) > 0 and max(values) > 20 * min(values))


def test_samples_sort_by_number() -> None:
    names = ["step-100.txt", "step-20.txt", "step-3.txt", "last.txt"]
    assert sorted(names, key=natural) == ["last.txt", "step-3.txt", "step-20.txt", "step-100.txt"]


def test_long_sample_is_cut_and_says_so(tmp_path: Path, make_run: Any, make_summary: Any) -> None:
    folder = make_run(tmp_path / "run", make_summary("llm"))
    (folder / "samples").mkdir()
    (folder / "samples" / "a.txt").write_bytes(b"\xff" + b"y" * 5_000)
    found = read(folder)
    assert isinstance(found, Run)
    assert [(text.name, len(text.text), text.left_out) for text in found.texts] == [("a.txt", 4_000, 1_001)]


def test_several_components_of_a_kind_are_named_one_after_the_other(tmp_path: Path) -> None:
    chosen = {
        "callbacks": [
            {"name": "checkpoint", "distribution": "torchloom"},
            {"name": "samples", "distribution": "other"},
        ],
        "logger": [],
        "dataset": {"name": "digits", "distribution": "torchloom"},
    }
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished", "components": chosen}))
    run = read(tmp_path)
    assert isinstance(run, Run)
    assert run.components == {"callbacks": "checkpoint, samples", "logger": "", "dataset": "digits"}
