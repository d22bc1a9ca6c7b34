"""Time series: cut in order of time, normalised by the past alone, and cells that are no numbers."""

import pytest
import torch
from task_parts import everything

from torchloom.errors import DataError
from torchloom_tasks.configs import TimeSeriesConfig
from torchloom_tasks.series import TimeSeries, read_numbers


def series(path=None, **fields):
    fields = {"context_length": 4, "horizon": 2, "val_fraction": 0.2, "test_fraction": 0.2, **fields}
    return TimeSeries(TimeSeriesConfig(path=None if path is None else str(path), **fields))


def write(path, rows, head="time,load\n"):
    path.write_text(head + "".join(f"{a},{b}\n" for a, b in rows))
    return path


def counting(path, count=50):
    return write(path, [(number, number**2) for number in range(count)])


def in_unit(batch, name):
    return batch[name] * batch["std"][:, None] + batch["mean"][:, None]


def test_windows_are_consecutive_rows_in_the_file_s_own_unit(tmp_path):
    dataset = series(counting(tmp_path / "a.csv"))
    batch = everything(dataset.split("train"))
    assert batch["series"].shape == (25, 4, 2)
    assert torch.allclose(in_unit(batch, "series")[3, :, 0], torch.arange(3.0, 7.0), atol=1e-4)
    assert torch.allclose(in_unit(batch, "future")[3, :, 1], torch.tensor([49.0, 64.0]), atol=1e-3)


def test_a_split_forecasts_its_own_rows_each_and_no_other(tmp_path):
    dataset = series(counting(tmp_path / "a.csv"))
    rows = {}
    for name in ("train", "val", "test"):
        future = in_unit(everything(dataset.split(name)), "future")[..., 0].round()
        rows[name] = set(future.flatten().int().tolist())
    assert rows == {"train": set(range(4, 30)), "val": set(range(30, 40)), "test": set(range(40, 50))}


def test_normalisation_knows_the_training_part_alone(tmp_path):
    one = series(counting(tmp_path / "a.csv"))
    other = series(write(tmp_path / "b.csv", [(n, n**2 if n < 30 else 1e6) for n in range(50)]))
    mine, theirs = (everything(dataset.split("train")) for dataset in (one, other))
    assert torch.equal(mine["series"], theirs["series"])
    assert torch.equal(mine["mean"], theirs["mean"])
    values = torch.arange(30.0)
    assert torch.allclose(mine["mean"][0, 0], values.mean())
    assert torch.allclose(mine["std"][0, 0], values.std(unbiased=False))


def test_a_column_that_never_changes_stays_finite(tmp_path):
    batch = everything(series(write(tmp_path / "a.csv", [(n, 7) for n in range(50)])).split("train"))
    assert (batch["series"][..., 1] == 0).all()
    assert (batch["std"][:, 1] == 1).all()


def test_columns_are_chosen_by_name_or_number(tmp_path):
    named = series(write(tmp_path / "a.csv", [(f"2024-01-{n:02}", n) for n in range(1, 31)]), columns=["load"])
    assert named.spec.channels == 1
    bare = series(write(tmp_path / "b.csv", [(n, -n) for n in range(40)], head=""), columns=["2"])
    assert in_unit(everything(bare.split("train")), "series")[0, :, 0].round().tolist() == [0, -1, -2, -3]


def test_the_series_made_up_has_its_seasons_and_the_same_bits_always():
    one, same = series(context_length=168, horizon=24, noise=0.0), series(context_length=168, horizon=24, noise=0.0)
    assert torch.equal(everything(one.split("test"))["future"], everything(same.split("test"))["future"])
    batch = everything(one.split("train"))
    whole = in_unit({**batch, "whole": torch.cat([batch["series"], batch["future"]], 1)}, "whole")
    assert torch.allclose(whole[:, 0], whole[:, 168], atol=1e-3)  # the longer season
    assert not torch.allclose(whole[:, 0], whole[:, 24], atol=1e-1)


def test_read_takes_the_end_of_a_file(tmp_path):
    dataset = series(counting(tmp_path / "a.csv"))
    batch = everything(dataset.read([str(write(tmp_path / "new.csv", [(n, 0) for n in range(90, 100)]))]))
    assert in_unit(batch, "series")[0, :, 0].round().tolist() == [96, 97, 98, 99]
    assert "future" not in batch
    with pytest.raises(DataError, match=r"short\.csv: has 2 rows, fewer than dataset\.context_length=4"):
        dataset.read([str(write(tmp_path / "short.csv", [(1, 2), (3, 4)]))])


@pytest.mark.parametrize(
    ("cell", "found"), [("", "nothing"), ("n/a", "'n/a'"), ("nan", "'nan'"), ("inf", "'inf'")]
)  # fmt: skip
def test_a_cell_that_is_no_number_is_named(tmp_path, cell, found):
    path = write(tmp_path / "a.csv", [(1, 2), (2, cell), (3, 4)])
    with pytest.raises(DataError) as caught:
        series(path).prepare()
    assert str(caught.value) == (
        f"{path}, line 3: column load has {found} where a number should be; fill it in, or set dataset.columns to "
        "columns of numbers"
    )


def test_other_bad_files_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: has 1 cells, but there are 2 columns; correct it"):
        series(path).prepare()
    with pytest.raises(DataError, match=r"a\.csv: has no column c; set dataset\.columns to some of a, b"):
        series(path, columns=["c"]).prepare()
    with pytest.raises(DataError) as caught:
        series(counting(path, 20), context_length=16).prepare()
    assert str(caught.value) == (
        f"{path}: the train split has 12 of 20 rows, but needs 18; give more rows, or lower dataset.context_length or "
        "dataset.horizon"
    )


def test_a_blank_line_between_rows_is_named_and_one_behind_them_is_none(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a\n" + "".join(f"{number}\n" for number in range(40)) + "\n\n")
    assert len(read_numbers(file, [])[1]) == 40
    file.write_text("a\n1\n\n2\n")
    with pytest.raises(DataError) as caught:
        read_numbers(file, [])
    told = "is blank, and a row left out would shift those behind it; fill or remove it"
    assert str(caught.value) == f"{file}, line 3: {told}"
