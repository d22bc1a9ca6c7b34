"""Options of the `report` command. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from torchloom.options import option


@dataclass
class ReportConfig:
    """Write one HTML page about a run or a sweep.

    Example:
        torchloom report FOLDER
        torchloom report FOLDER out=page.html
    """

    folder: str = option(MISSING, "Folder of a run or of a sweep.")
    out: str | None = option(None, "File to write; report.html in that folder unless given.")
