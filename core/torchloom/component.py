"""The two records that everything else is built on: what a component is, and what a kind of component is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Component:
    """One named implementation of a kind, declared by strings so that declaring it imports nothing.

    Attributes:
        kind: Name of the `Kind` it implements, such as ``"architecture"``.
        name: Lower-snake name that people type: ``architecture=decoder``.
        target: ``"package.module:Class"``, imported only when the component is built.
        config: ``"package.configs:ClassConfig"``, a torch-free dataclass whose fields are made by
            `torchloom.options.option`; its instance is the first argument of the target.
        summary: One line for `torchloom list`.
        source: Paper or reference implementation it follows.
        needs: Importable modules beyond torchloom's own requirements, checked before it is built.
        extra: The extra to install when one of ``needs`` is missing, such as ``"torchloom[corpus]"``.
        slots: Other groups that choosing this component opens, each with its default choice: a text dataset opens
            ``{"tokenizer": "char"}``, an attention architecture ``{"attention": "sdpa"}``. A group that no chosen
            component opens cannot be set.
        aliases: Former names, still accepted in checkpoints and on the command line.
        describe: ``"package.module:function"``, torch-free, that `torchloom show` calls with a config of this component,
            with a preset's values where it shows a preset; it returns facts by name, such as a parameter count.
    """

    kind: str
    name: str
    target: str
    config: str
    summary: str
    source: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""
    slots: Mapping[str, str] = field(default_factory=dict, hash=False)
    aliases: tuple[str, ...] = ()
    describe: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of interchangeable components.

    Attributes:
        name: Singular name used in `Component.kind`.
        contract: ``"package.module:Class"`` that every target of this kind subclasses (or the protocol it follows).
        summary: One line for `torchloom list`.
        group: Hydra config group, the word people type; the kind's name unless given.
        many: Whether several may be chosen at once (``callbacks=[checkpoint,samples]``); each then sits under its own
            name, ``callbacks.checkpoint.every_n_steps=100``.
        configurable: Whether it has a config group at all (commands have none).
        command: Command in whose configuration it is a group.
    """

    name: str
    contract: str
    summary: str
    group: str = ""
    many: bool = False
    configurable: bool = True
    command: str = "train"

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)
