"""What the pages say is so: links lead somewhere, commands compose, the reference is the registry's."""

import importlib.util
import inspect
import itertools
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from pages import PAGES, ROOT, Line, commands, links

from torchloom import cli, composing, registry
from torchloom.errors import TorchloomError
from torchloom_corpus.configs import RecipeConfig


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINES = [
    pytest.param(line, id=f"{page.name}: {' '.join(line.words)}")
    for page in PAGES
    if page.name != "write-a-plugin.md"  # needs its plugin: test_write_a_plugin.py
    for line in commands(page)
    if line.words[0] == "torchloom"
]


def test_reference_is_up_to_date() -> None:
    made = generator()
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run make docs"


def test_every_hook_is_told_with_its_arguments() -> None:
    page = (ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
    for name, hook in generator().hooks().items():
        assert f"`{name}({', '.join(inspect.signature(hook).parameters)})`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [place for place in links(page) if not (page.parent / place).exists()] == []


def test_first_screen_of_the_readme_holds_the_ways_in() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    for way in ("make demo", "make test", "pip install .", "pip install -e '.[test]'"):
        assert way in first_screen


def test_every_command_is_told() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    words = [name.replace("_", " ") for name in registry.current().names("command")]
    assert [name for name in words if f"torchloom {name}" not in page] == []


@pytest.mark.parametrize("line", LINES)
def test_command_composes(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path)
    for words in expanded(list(line.words[1:])):
        told = [word.replace("FOLDER", str(run)).replace("FILE", str(run / "config.yaml")) for word in words]
        error = mistake(told, capsys)
        assert bool(error) == bool(line.failure), error
        assert line.failure in error


def mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is wrong with a command; nothing is run by it."""
    if words[0] == "train" and not any(word.startswith(("ckpt=", "sweep", "-")) for word in words):
        try:
            composing.compose(words[1:])  # checks values too
        except TorchloomError as error:
            return str(error)
        return ""
    if words[:2] == ["corpus", "build"]:
        try:
            composing.compose(words[2:], RecipeConfig)
        except TorchloomError as error:
            return str(error)
        return ""
    code = cli.main(words if words[0].startswith("-") else [*words, "--cfg", "job"])
    errors = capsys.readouterr().err
    assert bool(errors) == bool(code)
    return errors


def finished_run(folder: Path) -> Path:
    """Make a folder that looks like a run's, as far as composing looks into it."""
    run = folder / "runs" / "2026-01-01_00-00-00_cnn"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    for name in ("step-00000001.ckpt", "best.ckpt"):
        with zipfile.ZipFile(run / "checkpoints" / name, "w") as file:
            file.writestr("archive/version", "3")
    return run


def expanded(words: list[str]) -> list[list[str]]:
    """Return a command line once for each combination of values if it is a multirun."""
    if "-m" not in words:
        return [words]
    words = [word for word in words if word != "-m"]
    presets = [word.partition("=")[2] for word in words if word.startswith("sweep=")]
    for preset in presets:
        params = OmegaConf.select(OmegaConf.load(ROOT / "conf" / "sweep" / f"{preset}.yaml"), "hydra.sweeper.params")
        words += [f"{key}={values}" for key, values in (params or {}).items()]
    parser = OverridesParser.create()
    choices = []
    for word in words[1:]:
        override = parser.parse_override(word)
        key = override.get_key_element()
        choices.append(
            [f"{key}={value}" for value in override.sweep_string_iterator()] if override.is_sweep_override() else [word]
        )
    return [[words[0], *combination] for combination in itertools.product(*choices)]
