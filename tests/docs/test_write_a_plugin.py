"""The page "Write a plugin in ten minutes" does what it says: its files are made, its commands run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, commands, files

PAGE = ROOT / "docs" / "write-a-plugin.md"
COMMANDS = [line for line in commands(PAGE) if line.words[0] == "torchloom"]

# One process for all commands: importing torch takes longer than any of them.
RUNNER = """
import contextlib, io, json, sys
from torchloom import cli
results = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    results.append([code, out.getvalue(), err.getvalue()])
with open("results.json", "w") as file:
    json.dump(results, file)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the page's package as a reader does, and install it beside the environment."""
    folder = tmp_path_factory.mktemp("plugin")
    shown = files(PAGE)
    assert set(shown) == {"pyproject.toml", "my_plugin/plugin.py", "my_plugin/configs.py", "my_plugin/mlp.py"}
    for name, text in {**shown, "my_plugin/__init__.py": ""}.items():
        path = folder / "my_plugin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert ("pip", "install", "./my_plugin") in [line.words for line in commands(PAGE)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "site", folder / "my_plugin"], check=True, capture_output=True)
    return folder


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_commands_do_what_the_page_says(installed: Path) -> None:
    done = python(installed, "-c", RUNNER, json.dumps([line.words[1:] for line in COMMANDS]))
    assert done.returncode == 0, done.stderr
    results = json.loads((installed / "results.json").read_text())
    for line, (code, out, err) in zip(COMMANDS, results, strict=True):
        told = f"{' '.join(line.words)}\n{out}\n{err}"
        assert (code != 0) == bool(line.failure), told
        assert line.failure in err, told
    listed, shown = results[0][1], results[1][1]
    assert "my-plugin 0.1.0" in listed
    assert all(option in shown for option in ("hidden", "activation", "dropout"))
    summaries = [json.loads(path.read_text()) for path in installed.glob("runs/*/summary.json")]
    assert [summary["components"]["architecture"]["name"] for summary in summaries] == ["mlp", "mlp"]
    sweep = next(installed.glob("sweeps/*/summary.json"))
    assert [job["status"] for job in json.loads(sweep.read_text())["jobs"]] == ["finished"] * 4


def test_it_keeps_its_contract(installed: Path) -> None:
    wanted = ("pytest", "--pyargs", "torchloom.testing", "-k", "my-plugin")
    assert wanted in [line.words for line in commands(PAGE)]
    done = python(installed, "-m", *wanted, "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
