"""Numbers over time, divided in order."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.contracts.spec import SeriesSpec
from torchloom.errors import DataError
from torchloom_tasks.configs import TimeSeriesConfig
from torchloom_tasks.division import check_shares
from torchloom_tasks.tables import text_of


class SeriesSplit(Split):
    """All windows over a stretch of time: what a model sees, and what comes next."""

    def __init__(self, values: Tensor, mean: Tensor, std: Tensor, context_length: int, horizon: int) -> None:
        """Lay windows.

        Args:
            values: float32 ``(times, channels)``, normalised.
            mean: ``(channels,)``, what was taken away.
            std: ``(channels,)``, what the rest was divided by.
            context_length: Times that a model sees.
            horizon: Times to forecast; 0 gives windows without a future.
        """
        self._windows = values.unfold(0, context_length + horizon, 1)
        self._mean, self._std = mean, std
        self._context_length, self._horizon = context_length, horizon

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return ``series``, ``future``, and the ``mean`` and ``std`` that turn them back into the file's unit."""
        whole = self._windows[indices].transpose(1, 2)
        series, future = (part.contiguous() for part in whole.split((self._context_length, self._horizon), dim=1))
        own = {"mean": self._mean.expand(len(indices), -1), "std": self._std.expand(len(indices), -1)}
        return {"series": series, **({"future": future} if self._horizon else {}), **own}


class TimeSeries(Dataset):
    """Columns of a CSV file, or a series made up of two seasons and noise.

    The first rows are for training, the next for validation, the last for the test. Values are normalised by the mean
    and standard deviation of each column's training part. What a model sees of validation and test may begin in the part
    before, as it would when they come; what it is to forecast never does.
    """

    config: TimeSeriesConfig

    def __init__(self, config: TimeSeriesConfig) -> None:
        super().__init__(config)
        check_shares(config)

    def prepare(self) -> None:
        """Read the file."""
        _ = self._normal

    @property
    def spec(self) -> SeriesSpec:
        """Channels and lengths."""
        return SeriesSpec(len(self._data[0]), self.config.context_length, horizon=self.config.horizon)

    @cached_property
    def _data(self) -> tuple[list[str], Tensor]:
        """Names and values, float64 ``(times, channels)``."""
        if self.config.path is None:
            return ["a", "b"], made_up(self.config)
        return read_numbers(Path(self.config.path).expanduser(), self.config.columns)

    @cached_property
    def _bounds(self) -> dict[SplitName, tuple[int, int]]:
        """The rows of each split that may be forecast.

        Raises:
            DataError: A split is too short.
        """
        config, rows = self.config, len(self._data[1])
        val = int((1 - config.val_fraction - config.test_fraction) * rows)
        test = int((1 - config.test_fraction) * rows)
        bounds: dict[SplitName, tuple[int, int]] = {"train": (0, val), "val": (val, test), "test": (test, rows)}
        for name, (start, stop) in bounds.items():
            least = config.horizon + (config.context_length if name == "train" else 0)
            if stop - start < least and (name == "train" or getattr(config, f"{name}_fraction") > 0):
                raise DataError(
                    f"{config.path or 'the series made up'}: the {name} split has {stop - start} of {rows} rows, but needs "
                    f"{least}; give more rows, or lower dataset.context_length or dataset.horizon"
                )
        return bounds

    @cached_property
    def _normal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised values, means and standard deviations, float32."""
        values = self._data[1]
        train = values[: self._bounds["train"][1]]
        mean, std = train.mean(0), train.std(0, unbiased=False)
        std = torch.where(std > 0, std, 1.0)  # a column that never changes in training stays as it is
        return ((values - mean) / std).float(), mean.float(), std.float()

    def split(self, name: SplitName) -> Split:
        """Lay windows over one split; an empty one if its share is 0."""
        values, mean, std = self._normal
        config, (start, stop) = self.config, self._bounds[name]
        if name != "train":
            start -= config.context_length
        if stop - start < config.context_length + config.horizon:
            stop = start = 0
            values = values.new_zeros(config.context_length + config.horizon - 1, values.shape[1])
            return SeriesSplit(values, mean, std, config.context_length, config.horizon)
        return SeriesSplit(values[start:stop], mean, std, config.context_length, config.horizon)

    def read(self, inputs: Sequence[str]) -> Split:
        """Read CSV files: the last `context_length` rows of each, whose future is to be forecast.

        Raises:
            DataError: One cannot be read, has other columns, or too few rows.
        """
        names, config = self._data[0], self.config
        _, mean, std = self._normal
        ends = []
        for given in inputs:
            found, values = read_numbers(Path(given).expanduser(), config.columns)
            if found != names:
                raise DataError(f"{given}: has the columns {', '.join(found)}, not {', '.join(names)}")
            if len(values) < config.context_length:
                raise DataError(
                    f"{given}: has {len(values)} rows, fewer than dataset.context_length={config.context_length}"
                )
            ends.append(((values[-config.context_length :] - mean) / std).float())
        return _Ends(torch.stack(ends), mean, std)


class _Ends(Split):
    """Windows without a future, one an input."""

    def __init__(self, series: Tensor, mean: Tensor, std: Tensor) -> None:
        self._series, self._mean, self._std = series, mean, std

    def __len__(self) -> int:
        return len(self._series)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        count = len(indices)
        return {
            "series": self._series[indices],
            "mean": self._mean.expand(count, -1),
            "std": self._std.expand(count, -1),
        }


def made_up(config: TimeSeriesConfig) -> Tensor:
    """Return two columns of a season of 24 rows and one of 168, in different measure, with noise; float64 ``(rows, 2)``."""
    time = torch.arange(config.rows, dtype=torch.float64)
    day, week = (2 * math.pi * time / period for period in (24, 168))
    one = day.sin() + 0.5 * week.sin()
    other = 10 + 5 * (0.5 * (day + 1).sin() + (week + 2).cos())
    noise = torch.randn(config.rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(config.seed))
    return torch.stack([one, other], 1) + config.noise * noise * torch.tensor([1.0, 5.0])


def read_numbers(path: Path, columns: Sequence[str]) -> tuple[list[str], Tensor]:
    """Read columns of a CSV file; its first line is one of names unless it holds nothing but numbers.

    Args:
        path: The file.
        columns: Names; all columns if there are none.

    Returns:
        Their names, and the values, float64 ``(rows, columns)``.

    Raises:
        DataError: The file is missing or empty, lacks a column, or a cell is no finite number; names file and line.
    """
    content = text_of(path, "set dataset.path to a CSV file with a row a time")
    reader = csv.reader(io.StringIO(content, newline=""))
    lines = [(reader.line_num, cells) for cells in reader]
    while lines and not lines[-1][1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: holds no rows; give a file that does")
    blank = next((line for line, cells in lines if not cells), None)
    if blank is not None:
        raise DataError(
            f"{path}, line {blank}: is blank, and a row left out would shift those behind it; fill or remove it"
        )
    head = lines[0][1]
    named = any(_number(cell) is None for cell in head)
    names = [cell.strip() for cell in head] if named else [str(number) for number in range(1, len(head) + 1)]
    wanted = list(columns) or names
    for name in wanted:
        if name not in names:
            raise DataError(f"{path}: has no column {name}; set dataset.columns to some of {', '.join(names)}")
    places = [names.index(name) for name in wanted]
    rows = []
    for line, cells in lines[named:]:
        if len(cells) != len(names):
            raise DataError(
                f"{path}, line {line}: has {len(cells)} cells, but there are {len(names)} columns; correct it"
            )
        row = []
        for place in places:
            value = _number(cells[place])
            if value is None:
                found = repr(cells[place]) if cells[place].strip() else "nothing"
                raise DataError(
                    f"{path}, line {line}: column {names[place]} has {found} where a number should be; fill it in, or set "
                    "dataset.columns to columns of numbers"
                )
            row.append(value)
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no rows of numbers; give a file that does")
    return wanted, torch.tensor(rows, dtype=torch.float64)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
