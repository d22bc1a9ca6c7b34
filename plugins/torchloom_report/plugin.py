"""HTML reports: the `report` command, and a page at the end of every run and sweep. Torch-free."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the command."""
    return [
        Component(
            kind="command",
            name="report",
            target="torchloom_report.command:run",
            config="torchloom_report.configs:ReportConfig",
            summary="Write one HTML page about a run or a sweep: results, learning curves, samples, confusion matrix.",
        )
    ]


@hookimpl
def torchloom_run_finished(folder: Path, summary: dict[str, Any]) -> None:
    """Write the page of a sweep, or of a run that is not one of a sweep's jobs: those stand on the sweep's page.

    Raises:
        ConfigError: The page cannot be written there.
    """
    if "jobs" in summary or summary.get("job") is None:
        from torchloom_report.page import write_report

        page = write_report(folder, summary=summary)
        if "jobs" in summary:
            print(f"report: {page}", file=sys.stderr)
