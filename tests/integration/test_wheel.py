"""The wheel in a second environment, from an empty folder: nothing may come from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LEFT_BEHIND = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "sweeps")

pytestmark = pytest.mark.slow


class Environment:
    """A virtual environment that holds what is installed into it, and this one's packages behind, torchloom left out.

    Only that this environment's folder is on the path, not what its .pth files add, keeps an editable checkout out.
    """

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        self.python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.work = folder / "empty"
        self.work.mkdir()
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (packages / "shared.pth").write_text("".join(f"{path}\n" for path in shared))

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run([self.python, *words], cwd=self.work, env=variables, capture_output=True, text=True)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def torchloom(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = self.python.parent / "torchloom"
        return self.run(script, *words, check=check)

    def install(self, wheel: Path) -> None:
        self.run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)


def build_wheel(source: Path, folder: Path) -> Path:
    copy = folder / f"source_{source.name}"
    shutil.copytree(source, copy, ignore=LEFT_BEHIND)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder / "dist", copy], check=True, capture_output=True)
    shutil.rmtree(copy)
    name = "torchloom_example_plugin" if "third_party" in source.name else "torchloom"
    return next((folder / "dist").glob(f"{name}-*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("wheel")
    made = Environment(folder)
    made.install(build_wheel(CHECKOUT, folder))
    return made


def test_everything_comes_from_the_wheel(environment: Environment) -> None:
    script = "import torchloom, torchloom_vision.cnn, torchloom_conf\n"
    script += "for one in (torchloom, torchloom_vision, torchloom_conf): print(one.__file__)"
    for place in environment.run("-c", script).stdout.splitlines():
        assert Path(place).is_relative_to(environment.python.parents[1])


def test_config_files_are_in_the_wheel(environment: Environment) -> None:
    script = "from importlib.resources import files\n"
    script += "print(*sorted(p.relative_to(files('torchloom_conf')) for p in files('torchloom_conf').rglob('*.yaml')))"
    packed = environment.run("-c", script).stdout.split()
    conf = CHECKOUT / "conf"
    assert packed == sorted(str(path.relative_to(conf)) for path in conf.rglob("*.yaml"))


def test_trains_and_reports(environment: Environment) -> None:
    assert "cnn" in environment.torchloom("list").stdout
    done = environment.torchloom("train", "experiment=cnn", "debug=fast")
    folder = Path(environment.work / done.stdout.splitlines()[-1])
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert list(folder.glob("*.html"))


def test_third_party_plugin_comes_and_goes(environment: Environment, tmp_path: Path) -> None:
    environment.install(build_wheel(CHECKOUT / "examples" / "third_party_plugin", tmp_path))
    assert "tiny_resnet" in environment.torchloom("list", "architecture").stdout
    environment.torchloom("train", "experiment=tiny_resnet_digits", "debug=fast")
    environment.torchloom("train", "-m", "architecture=tiny_resnet,cnn", "debug=fast")

    contracts = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "torchloom.testing"]
    tested = environment.run(*contracts, "-k", "torchloom-example-plugin").stdout
    assert " passed" in tested

    environment.run("-m", "pip", "uninstall", "--quiet", "--yes", "torchloom-example-plugin")
    gone = environment.torchloom("train", "architecture=tiny_resnet", check=False)
    assert gone.returncode == 2
    assert "no architecture is called 'tiny_resnet'" in gone.stderr
