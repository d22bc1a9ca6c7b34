"""Write docs/reference.md from the registry, so that it says what the code says: python docs/make_reference.py."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchloom import configs, hookspecs, registry, schema
from torchloom.component import Component, Kind
from torchloom.schema import FieldInfo

PAGE = Path(__file__).with_name("reference.md")
DISTRIBUTION = "torchloom"


def page() -> str:
    """Return the whole page: every kind and component of this distribution, the root keys and the hooks."""
    return "\n".join(lines()).rstrip() + "\n"


def lines() -> Iterator[str]:
    """Yield the page's lines."""
    known = registry.current()
    yield "# Reference"
    yield ""
    yield "Written by `make docs` from the components themselves. `torchloom show KIND/NAME` says the same, of other"
    yield "packages' components too."
    yield ""
    for kind in known.kinds.values():
        own = [one for one in known.components(kind.name) if known.supplier(one).distribution == DISTRIBUTION]
        if own:
            yield from kind_section(kind, own)
    yield "## Keys at the root"
    yield ""
    yield from options_table(schema.describe_class(configs.RunConfig))
    yield from options_table(schema.describe_class(configs.SweepConfig, "sweep."))
    yield "## Hooks"
    yield ""
    yield "What a plugin may implement; see [Write a plugin in ten minutes](write-a-plugin.md)."
    yield ""
    for name, hook in hooks().items():
        yield f"### `{name}{inspect.signature(hook)}`".replace("'", "")
        yield ""
        yield from inspect.cleandoc(hook.__doc__ or "").splitlines()
        yield ""


def kind_section(kind: Kind, components: list[Component]) -> Iterator[str]:
    """Yield one kind with its components."""
    yield f"## {kind.name}"
    yield ""
    how = f"`torchloom {kind.name.upper()}`" if not kind.configurable else f"`{kind.group}=NAME`"
    if kind.many:
        how = f"`{kind.group}=[NAME,NAME]`, options under `{kind.group}.NAME.`"
    contract = "" if ":" not in kind.contract else f" Contract: `{kind.contract.replace(':', '.')}`."
    yield f"{kind.summary}. {how}.{contract}"
    yield ""
    for component in components:
        yield f"### {kind.name}/{component.name}"
        yield ""
        yield component.summary.rstrip(".") + "."
        yield ""
        facts = {
            "Source": component.source,
            "Opens the groups": ", ".join(f"{group} ({choice})" for group, choice in component.slots.items()),
            "Needs": ", ".join(component.needs),
        }
        for title, text in facts.items():
            if text:
                yield f"{title}: {text}"
                yield ""
        yield from options_table(schema.describe(component))


def options_table(fields: list[FieldInfo]) -> Iterator[str]:
    """Yield a table of options."""
    if not fields:
        return
    yield "| option | type | default | range | what it does |"
    yield "|---|---|---|---|---|"
    for field in fields:
        doc = f"{field.doc} ({field.source})" if field.source else field.doc
        limits = f"{field.range} {field.unit}".strip()
        cells = [f"`{field.name}`", field.type, shown(field.default), limits, doc]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def shown(default: Any) -> str:
    """Return a default as one writes it on the command line."""
    if default == "???":
        return "(needed)"
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def hooks() -> dict[str, Any]:
    """Return the hook specifications by name."""
    return {name: value for name, value in vars(hookspecs).items() if name.startswith("torchloom_")}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
