"""The chapter on data, whole: a site is crawled, cleaned and tokenised, and a language model trained on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

SITES = sorted(Path("/usr/share/doc").glob("python3*/html/index.html"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITES, reason="needs a site on this machine: apt-get install python3-doc"),
]


def torchloom(folder: Path, *words: str) -> str:
    """Run the program as a person does, and return what it prints on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "torchloom", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(SITES[-1].parent)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/index.html"
    finally:
        server.kill()
        server.wait()


def test_a_site_becomes_a_language_model(site: str, tmp_path: Path) -> None:
    out = torchloom(
        tmp_path,
        "corpus",
        "build",
        "recipe=plain",
        "source=crawl",
        f"source.seeds=[{site}]",
        "source.allow_private=[127.0.0.1]",
        "source.delay=0",
        "tokenizer.vocab_size=2000",
        "tasks=4",
        "out=corpus",
    )
    corpus = Path(out.splitlines()[-1])
    assert corpus == tmp_path / "corpus"
    stages = {stage["name"]: stage for stage in json.loads((corpus / "statistics.json").read_text())["stages"]}
    assert stages["source"]["documents"] >= 500
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert manifest["documents"] >= 490  # an index of words alone has no main text
    assert manifest["tokens"] > 2_000_000
    page = (corpus / "report.html").read_text(encoding="utf-8")
    for step in stages:
        assert step in page

    run = tmp_path / "run"
    torchloom(
        tmp_path,
        "train",
        "experiment=llm",
        "dataset=corpus",
        "dataset.path=corpus",
        "trainer.max_steps=100",
        "trainer.limit_val_batches=10",
        "trainer.val_every_n_steps=50",
        "trainer.progress=none",
        f"hydra.run.dir={run}",
    )
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["val/loss"] < 6.5  # of ln 2000 = 7.6 at the start
    text = torchloom(tmp_path, "generate", f"ckpt={run}", "prompt=The module", "max_new_tokens=20")
    assert text.startswith("The module")
    assert len(text) > len("The module") + 10
