import csv
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchloom_training.configs import CSVConfig, TensorBoardConfig
from torchloom_training.loggers import CSV, TensorBoard


def logger_in(folder: Path):
    return CSV(CSVConfig()).build(folder)


def text(folder: Path) -> str:
    return (folder / "metrics.csv").read_text()


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_call_with_blanks_where_a_metric_is_absent(tmp_path):
    logger = logger_in(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": 0.1 + 0.2, "lr": 1e-3}, 50)
    logger.log_metrics({"epoch": 0, "val/loss": torch.tensor(0.5)}, 60)
    logger.log_metrics({"epoch": 1, "lr": 1e-4, "train/loss": 0.25}, 100)
    assert text(tmp_path) == (
        "epoch,step,train/loss,lr,val/loss\n0,50,0.30000000000000004,0.001,\n0,60,,,0.5\n1,100,0.25,0.0001,\n"
    )


ROWS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", 'c,"d"', "ü"]), st.floats(), max_size=4), min_size=1, max_size=6
)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_values_come_back_bit_for_bit(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("run")
    logger = logger_in(folder)
    for step, row in enumerate(rows):
        logger.log_metrics({"epoch": 0, **row}, step)
    back = read(folder)
    assert [int(row["step"]) for row in back] == list(range(len(rows)))
    for row, original in zip(back, rows, strict=True):
        for name, value in original.items():
            assert (math.isnan(value) and row[name] == "nan") or float(row[name]).hex() == value.hex()
        assert all(row[name] == "" for name in set(row) - set(original) - {"epoch", "step"})


def test_each_row_is_in_the_file_before_the_call_returns(tmp_path):
    logger = logger_in(tmp_path)
    for step in range(3):
        logger.log_metrics({"epoch": 0, "loss": 1.0}, step)
        assert len(read(tmp_path)) == step + 1


def test_rewind_drops_the_rows_behind_the_step_and_goes_on(tmp_path):
    logger = logger_in(tmp_path)
    for step in (1, 2, 2, 3, 4):
        logger.log_metrics({"epoch": 0, "loss": step / 2}, step)
    again = logger_in(tmp_path)
    again.rewind(2)
    again.log_metrics({"epoch": 0, "loss": 9.0}, 3)
    assert text(tmp_path) == "epoch,step,loss\n0,1,0.5\n0,2,1.0\n0,2,1.0\n0,3,9.0\n"


def test_rewind_begins_the_file_of_a_run_that_logged_nothing(tmp_path):
    logger_in(tmp_path).rewind(-1)
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step\n"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.booleans())
def test_a_kill_at_any_byte_loses_at_most_the_line_in_the_making(tmp_path_factory, length, rewound):
    folder = tmp_path_factory.mktemp("run")
    logger = logger_in(folder)
    for step in (1, 2, 3):
        logger.log_metrics({"epoch": 0, "loss": step / 3}, step)
    whole = (folder / "metrics.csv").read_bytes()
    cut = whole[:length]
    (folder / "metrics.csv").write_bytes(cut)
    again = logger_in(folder)
    if rewound:
        again.rewind(100)
    again.log_metrics({"epoch": 0, "loss": 0.5}, 4)
    kept = max(0, cut.count(b"\n") - 1)
    assert [row["step"] for row in read(folder)] == [*["1", "2", "3"][:kept], "4"]


def test_continued_run_writes_the_bytes_of_one_that_was_never_killed(tmp_path):
    rows = [
        ({"epoch": 0, "train/loss": step / 7, **({"val/loss": 1 / step} if step % 3 == 0 else {})}, step)
        for step in range(1, 9)
    ]
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    logger = logger_in(one)
    for row, step in rows:
        logger.log_metrics(row, step)
    logger = logger_in(other)
    for row, step in rows[:5]:
        logger.log_metrics(row, step)
    logger = logger_in(other)
    logger.rewind(2)
    for row, step in rows[2:]:
        logger.log_metrics(row, step)
    assert text(one) == text(other)
    assert [path.name for path in other.iterdir()] == ["metrics.csv"]


def test_failed_widening_leaves_the_old_file_whole(tmp_path, monkeypatch):
    logger = logger_in(tmp_path)
    logger.log_metrics({"epoch": 0, "loss": 1.0}, 1)
    before = text(tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        logger.log_metrics({"epoch": 0, "loss": 1.0, "new": 2.0}, 2)
    assert text(tmp_path) == before


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_has_the_scalars_and_no_file_of_hyper_parameters(tmp_path):
    logger = TensorBoard(TensorBoardConfig()).build(tmp_path)
    logger.log_hyperparams({"lr": 1.0})
    for step in (1, 2):
        logger.log_metrics({"epoch": 0, "val/loss": step / 4}, step)
    logger.finalize("success")
    assert events(tmp_path)["val/loss"] == [(1, 0.25), (2, 0.5)]
    assert all(path.name.startswith("events.") for path in (tmp_path / "tensorboard").iterdir())


def test_tensorboard_of_a_continued_run_shows_each_step_once(tmp_path):
    logger = TensorBoard(TensorBoardConfig()).build(tmp_path)
    for step in (1, 2, 3, 4):
        logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("failed")
    again = TensorBoard(TensorBoardConfig()).build(tmp_path)
    again.rewind(2)
    again.log_metrics({"loss": 30.0}, 3)
    again.finalize("success")
    assert events(tmp_path)["loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]
