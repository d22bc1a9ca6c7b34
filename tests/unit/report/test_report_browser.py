"""The page in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torchloom_report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
)


def load(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document as the browser built it, and what it said on its console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_browser_reports_no_error_and_asks_nothing_of_the_network(sweep: Path, tmp_path: Path) -> None:
    page = write_report(sweep)
    document, console = load(page, tmp_path / "profile")
    assert console == []
    assert document.count("<svg ") == 7
    assert document.count("<section ") == 5
    # The page forbids requests, so one that it made would stand on the console, as this one does.
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(page.read_text("utf-8").replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">'), "utf-8")
    _, console = load(spoiled, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
