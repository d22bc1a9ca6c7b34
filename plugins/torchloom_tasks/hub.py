"""Labelled texts from the Hugging Face hub."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torchloom.contracts.dataset import SplitName
from torchloom.errors import DataError
from torchloom_tasks.configs import HubConfig
from torchloom_tasks.division import divide
from torchloom_tasks.labelled import Labelled, LabelledText

_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("validation", "valid", "dev"),
    "test": ("test",),
}


class Hub(LabelledText):
    """Columns of a dataset of the hub, or of a folder that the `datasets` library reads.

    A split that it lacks, or whose labels are kept secret (-1), is a share of training.
    """

    config: HubConfig

    @property
    def pairs(self) -> bool:
        """Whether a second column is given."""
        return self.config.pair_column is not None

    @cached_property
    def _loaded(self) -> Any:
        import datasets

        config = self.config
        if config.path is None:
            raise DataError("dataset.path: not given; set dataset.path to a name such as stanfordnlp/sst2, or a folder")
        if config.path[0] in "/.~" and not Path(config.path).expanduser().exists():
            raise DataError(f"{config.path}: no such folder; set dataset.path to one, or to a name on the hub")
        path = str(Path(config.path).expanduser()) if config.path[0] == "~" else config.path
        try:
            return datasets.load_dataset(path, config.subset, cache_dir=config.cache)
        except ConnectionError as error:
            raise DataError(
                f"{path}: the hub cannot be reached, and there is no copy in the cache; go online once, or set "
                "dataset.path to a folder of its files"
            ) from error
        except Exception as error:  # each format's reader has errors of its own
            raise DataError(f"{path}: cannot be loaded: {(str(error) or repr(error)).splitlines()[0]}") from error

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names that the dataset gives its labels, else the training split's labels, sorted."""
        feature = self._features().get(self.config.label_column)
        names = getattr(feature, "names", None)
        if names is not None:
            return tuple(names)
        labels = {one.label for one in self.divided["train"]}
        if all(label.isascii() and label.isdigit() for label in labels):
            return tuple(str(number) for number in range(max(map(int, labels)) + 1))
        return tuple(sorted(labels))

    def divide(self) -> dict[SplitName, list[Labelled]]:
        """Load the splits.

        Raises:
            DataError: The hub cannot be reached, the dataset has no such columns, or a text is empty.
        """
        given: dict[SplitName, list[Labelled]] = {}
        for split, names in _NAMES.items():
            for name in names:
                found = self._read(name) if name in self._loaded else []
                given.update({split: found} if found else {})
        if "train" not in given:
            raise DataError(f"{self.config.path}: has no labelled split train, but {', '.join(self._loaded)}")
        return divide(given, lambda one: one.digest, self.config, str(self.config.path))

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = next(iter(self._loaded.values())).features
        return features

    def _read(self, name: str) -> list[Labelled]:
        config, features = self.config, self._features()
        wanted = {
            "text_column": config.text_column,
            "pair_column": config.pair_column,
            "label_column": config.label_column,
        }
        columns = {field: column for field, column in wanted.items() if column is not None}
        for field, column in columns.items():
            if column not in features:
                raise DataError(
                    f"{config.path}: has no column {column}; set dataset.{field} to one of {', '.join(features)}"
                )
        names = getattr(features[config.label_column], "names", None)
        table = self._loaded[name]
        values = [table[column] for column in columns.values()]
        examples = []
        for number, (*texts, label) in enumerate(zip(*values, strict=True)):
            if label is None or label == -1:
                continue
            place = f"{config.path}, {name}[{number}]"
            stripped = tuple(str(text or "").strip() for text in texts)
            if not all(stripped):
                raise DataError(f"{place}: the text is empty; choose another column or dataset")
            examples.append(Labelled(place, stripped, names[label] if names else str(label)))
        return examples
