"""A package from outside: installed for real, used by name, and gone without a trace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_plugin"


class Site:
    """A folder that packages are installed into, so that the environment of the tests stays as it is."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "site"
        self.work = folder / "work"
        self.work.mkdir()
        source = folder / "source"  # pip builds where the source lies
        shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--target", self.packages, source], check=True, capture_output=True)

    def torchloom(self, *words: str) -> subprocess.CompletedProcess[str]:
        return torchloom(self.work, *words, PYTHONPATH=str(self.packages))


def torchloom(work: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchloom", *words]
    return subprocess.run(command, env={**os.environ, **variables}, cwd=work, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("third_party"))


def test_list_and_show_tell_who_supplies_it(site: Site) -> None:
    listed = site.torchloom("list", "architecture")
    assert "tiny_resnet" in listed.stdout
    assert "torchloom-example-plugin 0.1.0" in listed.stdout
    shown = site.torchloom("show", "architecture/tiny_resnet").stdout
    assert "blocks_per_stage" in shown
    assert "torchloom-example-plugin" in shown


def test_trains_by_its_experiment(site: Site) -> None:
    done = site.torchloom("train", "experiment=tiny_resnet_digits", "debug=fast", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    summary = json.loads((site.work / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    supplied = {"name": "tiny_resnet", "distribution": "torchloom-example-plugin", "version": "0.1.0"}
    assert summary["components"]["architecture"] == supplied
    assert summary["plugins"]["torchloom-example-plugin"] == "0.1.0"


def test_sweeps_by_name(site: Site) -> None:
    words = ["architecture=tiny_resnet", "architecture.width=4,8", "debug=fast", "hydra.sweep.dir=sweep"]
    done = site.torchloom("train", "-m", *words)
    assert done.returncode == 0, done.stderr
    jobs = json.loads((site.work / "sweep" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "finished"]
    sizes = [json.loads((site.work / "sweep" / str(number) / "summary.json").read_text()) for number in (0, 1)]
    assert sizes[0]["parameters"]["total"] < sizes[1]["parameters"]["total"]


def test_uninstalled_its_name_is_gone(tmp_path: Path) -> None:
    done = torchloom(tmp_path, "train", "architecture=tiny_resnet", "debug=fast")
    assert done.returncode == 2
    assert "no architecture is called 'tiny_resnet'" in done.stderr
    assert "cnn" in done.stderr, "what there is to choose from"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
