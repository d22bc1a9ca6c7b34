"""What a call of the program gave, and the environment it is called in."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("torchloom")


@dataclass
class Result:
    """What a call gave."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on standard output."""
        return self.out.rstrip().rpartition("\n")[2]


def environment() -> dict[str, str]:
    """Return this process's environment without what changes how errors look."""
    unwanted = {"TORCHLOOM_TRACEBACK", "HYDRA_FULL_ERROR", "COLUMNS"}
    return {key: value for key, value in os.environ.items() if key not in unwanted} | {"OMP_NUM_THREADS": "1"}
