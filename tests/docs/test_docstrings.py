"""Docstrings say which errors to expect; ruff checks the rest of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

from torchloom import errors

MODULES = sorted(
    path
    for folder in ("core", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if "testing" not in path.parts and not path.name.startswith("_")
)
OURS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Yield public functions, and public methods of public classes; `__init__` is told by its class or itself."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (one for one in node.body if isinstance(one, Function) and not one.name.startswith("_"))


def raised(function: Function) -> set[str]:
    """Return torchloom's errors that a function itself raises."""
    found = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(error, ast.Name):
                found.add(error.id)
        waiting.extend(ast.iter_child_nodes(node))
    return found & OURS


def told(function: Function) -> set[str]:
    """Return the errors under ``Raises:``."""
    _, _, below = (ast.get_docstring(function) or "").partition("Raises:\n")
    names = set()
    for line in below.splitlines():
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     "):
            names.add(line.strip().partition(":")[0])
    return names


def functions_of(module: Path) -> list[Function]:
    return list(public_functions(ast.parse(module.read_text(encoding="utf-8"))))


@pytest.fixture(scope="session")
def contracts() -> dict[str, set[str]]:
    """What the contracts tell of their methods, which a component's own docstring need not repeat."""
    found: dict[str, set[str]] = {}
    for module in (ROOT / "core" / "torchloom" / "contracts").glob("*.py"):
        for function in functions_of(module):
            found.setdefault(function.name, set()).update(told(function))
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_raised_errors_are_told(module: Path, contracts: dict[str, set[str]]) -> None:
    missing = {
        function.name: sorted(raised(function) - told(function) - contracts.get(function.name, set()))
        for function in functions_of(module)
    }
    assert {name: names for name, names in missing.items() if names} == {}
