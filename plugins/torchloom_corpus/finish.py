"""Blocks that add up what a build did: whether anything is left, and what the corpus says of itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError
from torchloom_corpus.documents import Block, read_tallies
from torchloom_corpus.layout import INDEX, INPUTS, STATISTICS, Layout
from torchloom_corpus.shards import TokenizerRecord, write_manifest, write_whole
from torchloom_corpus.tally import StepTally
from torchloom_corpus.tokens import read_shards, tokens_a_byte

_REASONS = 3


class CheckNotEmpty(Block):
    """Raises if no document is left, and tells where they went."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Look at the counts of all tasks."""
        counts = self.layout.counts()
        if not counts[-1].documents:
            raise DataError(
                f"no document is left to make a corpus of:\n{funnel(counts)}\n"
                "    loosen the step that drops them, or give another source"
            )


def funnel(counts: Sequence[StepTally]) -> str:
    """Return what each stage let through and dropped, a line each."""
    lines = []
    for tally in counts:
        line = f"    {tally.name:<20} {tally.documents:>10,} documents"
        if tally.dropped:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.most_common(_REASONS))
            line += f", {tally.dropped.total():,} dropped: {reasons}{', ...' if len(tally.dropped) > _REASONS else ''}"
        lines.append(line)
    return "\n".join(lines)


class Finish(Block):
    """Writes all that belongs to a corpus but its shards, the manifest last.

    Args:
        layout: Files of the build.
        recipe: All that settles what is in the corpus, as plain values.
        tokenizer: Untrained.
        tokenizer_name: Of its component.
        tokenizer_config: Its settings, as plain values.
        versions: Of what built the corpus, by distribution.
        indexed: Names of the steps that may have an index to keep.
    """

    def __init__(
        self,
        layout: Layout,
        recipe: dict[str, Any],
        tokenizer: Tokenizer,
        tokenizer_name: str,
        tokenizer_config: dict[str, Any],
        versions: dict[str, str],
        indexed: Sequence[str],
    ) -> None:
        super().__init__()
        self.layout, self.recipe, self.versions, self.indexed = layout, recipe, versions, list(indexed)
        self.tokenizer, self.tokenizer_name, self.tokenizer_config = tokenizer, tokenizer_name, tokenizer_config

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do so, as the only task."""
        layout, tokenizer = self.layout, self.tokenizer
        tokenizer.load_state(layout.tokenizer.read_text(encoding="utf-8"))
        for name in self.indexed:
            _copy_folder(layout.step(name) / "index", layout.out / INDEX / name)
        inputs = layout.inputs.read_bytes()
        write_whole(layout.out / INPUTS, inputs)
        counts = layout.counts()
        [tokens] = read_tallies(layout.tallies("tokens"))
        stages = [_stage(tally, _estimate(tally, tokenizer)) for tally in counts]
        stages.append(_stage(tokens, tokens.counts["tokens"]))
        write_whole(layout.out / STATISTICS, _json({"stages": stages}))
        write_manifest(
            layout.out,
            read_shards(layout.shards),
            TokenizerRecord.of(self.tokenizer_name, self.tokenizer_config, tokenizer),
            recipe=self.recipe,
            recipe_hash=hashlib.sha256(_json(self.recipe)).hexdigest(),
            inputs=_summary(inputs),
            stages=[
                {"name": tally.name, "documents": tally.documents, "bytes": tally.bytes, "dropped": dict(tally.dropped)}
                for tally in (*counts, tokens)
            ],
            versions=self.versions,
        )


def _stage(tally: StepTally, tokens: int | None) -> dict[str, Any]:
    """Return what the statistics say of a stage: `StepTally.to_dict`, and ``tokens``, estimated for all but the last."""
    return {**tally.to_dict(), "tokens": tokens}


def _estimate(tally: StepTally, tokenizer: Tokenizer) -> int | None:
    ratio = tokens_a_byte(tokenizer, tally.texts)
    return None if ratio is None else round(ratio * tally.bytes)


def _summary(inputs: bytes) -> dict[str, Any]:
    units = [json.loads(line) for line in inputs.splitlines()]
    return {
        "file": INPUTS,
        "units": len(units),
        "bytes": sum(unit.get("bytes", 0) for unit in units),
        "sha256": hashlib.sha256(inputs).hexdigest(),
    }


def _copy_folder(source: Path, target: Path) -> None:
    if source.is_dir():
        partial = target.with_name(f"{target.name}.partial")
        for folder in (target, partial):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.replace(target)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace") + b"\n"
