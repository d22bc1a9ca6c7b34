"""How many tokens a second reach a training loop from a corpus on disk, as int64 batches.

A corpus of random tokens is written and read once, so that the disk's cache holds it. Contenders take turns, batch for
batch of random windows; a rate is the median over the rounds. nanoGPT's way maps one file of tokens and stacks slices of
it, inputs and targets apart; torch's DataLoader fetches single windows of the same map, and collates them.

    python benchmarks/corpus_loading.py > benchmarks/results/corpus_loading.md
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from torchloom.data import Loader
from torchloom_corpus.dataset.dataset import uniform
from torchloom_corpus.dataset.windows import MixedWindows, Stream
from torchloom_corpus.shards import Corpus, ShardWriter, TokenizerRecord, write_manifest

SHAPES = ((12, 64), (12, 1024), (32, 512), (8, 2048))
VOCAB, END, DOCUMENT = 50_257, 50_256, 700


def write(folder: Path, tokens: int, shards: int) -> Path:
    """Write documents of 700 tokens on average, and all of them as one file."""
    record = TokenizerRecord("bpe", {}, "{}", VOCAB, end=END)
    random = np.random.default_rng(0)
    written = []
    for rank in range(shards):
        with ShardWriter(folder, rank, record) as writer:
            count = 0
            while count < tokens // shards:
                length = int(random.exponential(DOCUMENT)) + 1
                count += writer.add(random.integers(END, size=length), int(random.integers(1 << 62)))
        written.append(writer.shard)
    write_manifest(folder, written, record)
    whole = folder / "whole.bin"
    with whole.open("wb") as file:
        for shard in written:
            file.write((folder / shard.file).read_bytes())
    return whole


def ours(folder: Path, batch: int, length: int, *, packed: bool) -> Iterator[Any]:
    """Training batches of the dataset `corpus`, a hundredth of the documents being held out, through the loader."""
    stream = Stream(Corpus(folder), lambda hashes: uniform(hashes, 0) >= 0.01)
    loader = Loader(MixedWindows([stream], [1.0], length, packed), batch, training=True)
    while True:
        yield from loader


def nanogpt(file: Path, batch: int, length: int) -> Iterator[Any]:
    while True:
        data = np.memmap(file, np.uint16, "r")  # anew for each batch, as there, against a leak of memory
        starts = torch.randint(len(data) - length, (batch,)).tolist()
        yield (
            torch.stack([torch.from_numpy(data[at : at + length].astype(np.int64)) for at in starts]),
            torch.stack([torch.from_numpy(data[at + 1 : at + 1 + length].astype(np.int64)) for at in starts]),
        )


class Windows(Dataset[Any]):
    def __init__(self, file: Path, length: int) -> None:
        self.data, self.length = np.memmap(file, np.uint16, "r"), length

    def __len__(self) -> int:
        return (len(self.data) - 1) // self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        start = index * self.length
        return torch.from_numpy(self.data[start : start + self.length + 1].astype(np.int64))


def dataloader(file: Path, batch: int, length: int) -> Iterator[Any]:
    while True:
        yield from DataLoader(Windows(file, length), batch, shuffle=True, drop_last=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000, help="size of the corpus")
    parser.add_argument("--shards", type=int, default=16, help="files that it is cut into")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender that are counted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = write(folder, options.tokens, options.shards)
        contenders: dict[str, Callable[[int, int], Iterator[Any]]] = {
            "corpus, packing=stream": lambda batch, length: ours(folder, batch, length, packed=False),
            "corpus, packing=documents": lambda batch, length: ours(folder, batch, length, packed=True),
            "as nanoGPT": lambda batch, length: nanogpt(whole, batch, length),
            "torch's DataLoader": lambda batch, length: dataloader(whole, batch, length),
        }
        start = time.perf_counter()
        Stream(Corpus(folder), lambda hashes: uniform(hashes, 0) >= 0.01)
        opened = time.perf_counter() - start
        rates = {shape: measure(contenders, shape, options.rounds) for shape in SHAPES}
    print("# Loading tokens\n")
    print(
        f"`python benchmarks/corpus_loading.py --tokens {options.tokens} --shards {options.shards} --rounds "
        f"{options.rounds}`: one process of one thread, {platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}. Millions of tokens a second; "
        "from the slowest to the fastest round in brackets.\n"
    )
    print(f"| windows x tokens | {' | '.join(contenders)} |")
    print("|---" * (1 + len(contenders)) + "|")
    for (batch, length), found in rates.items():
        cells = [
            f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})" for values in found.values()
        ]
        print(f"| {batch} x {length} | {' | '.join(cells)} |")
    batch, length = SHAPES[0]
    took = batch * length / statistics.median(rates[SHAPES[0]]["corpus, packing=documents"])
    print(
        f"\nShort windows cost what a batch and a window cost, not what tokens do: one of {batch} x {length} takes "
        f"{took:.0f} microseconds."
    )
    print(f"\nOpening the corpus and dividing its documents into splits took {opened * 1e3:.0f} ms.")


def measure(
    contenders: dict[str, Callable[[int, int], Iterator[Any]]], shape: tuple[int, int], rounds: int
) -> dict[str, list[float]]:
    """Return the rates of each contender, in millions of tokens a second."""
    batches = max(20, 2_000_000 // (shape[0] * shape[1]))
    sources = {name: make(*shape) for name, make in contenders.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, source in sources.items():
            start = time.perf_counter()
            for _ in islice(source, batches):
                pass
            if turn:  # the first warms up
                rates[name].append(batches * shape[0] * shape[1] / (time.perf_counter() - start) / 1e6)
    return rates


if __name__ == "__main__":
    main()
