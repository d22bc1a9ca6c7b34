"""What building a corpus takes: memory as it grows, and time beside datatrove's blocks and Hugging Face's tokenizers by hand.

The text is generated from the standard library's sources: each document is a run of lines of one module in which some
words are changed, so that no two are the same and near copies are rare.

    python benchmarks/corpus_build.py > benchmarks/results/corpus_build.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from loguru import logger

COMMAND = [sys.executable, "-m", "torchloom", "corpus", "build"]
BUILD = ["source=jsonl", "tokenizer.vocab_size=4096", "tasks=16", "engine.workers=2"]
STEPS = ["control_characters", "whitespace", "length", "exact_documents", "minhash"]


def documents(megabytes: float, seed: int = 0) -> Iterator[str]:
    """Yield texts of 1 to 12 kB until there are so many megabytes of them."""
    draw = random.Random(seed)
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(file for file in root.glob("*.py") if file.stat().st_size > 20_000)
    modules = [file.read_text(encoding="utf-8", errors="replace").splitlines() for file in files]
    left = megabytes * 1e6
    while left > 0:
        lines = draw.choice(modules)
        begin = draw.randrange(len(lines))
        text = "\n".join(lines[begin : begin + draw.randrange(40, 300)])
        text = re.sub(
            r"\w{4,}", lambda found: found[0] if draw.random() < 0.8 else f"{found[0]}_{draw.randrange(300)}", text
        )
        left -= len(text.encode())
        yield text


def write_jsonl(folder: Path, megabytes: float, files: int = 16) -> None:
    """Write generated documents as files of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = [(folder / f"{number:02d}.jsonl").open("w", encoding="utf-8") for number in range(files)]
    for number, text in enumerate(documents(megabytes)):
        opened[number % files].write(json.dumps({"id": str(number), "text": text}) + "\n")
    for file in opened:
        file.close()


class Watch:
    """Samples the resident memory of a process and all below it, and keeps the largest sum and the largest single one."""

    def __init__(self, pid: int) -> None:
        self.pid, self.total, self.single = pid, 0, 0
        self.going = True
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while self.going:
            sizes = [_private(pid) for pid in _tree(self.pid)]
            self.total, self.single = max(self.total, sum(sizes)), max(self.single, *sizes, 0)
            time.sleep(0.2)

    def stop(self) -> None:
        self.going = False
        self.thread.join()


def _tree(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def _private(pid: int) -> int:
    """Return the bytes of a process's anonymous memory: pages of files come and go as the system likes."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def measure_memory(scratch: Path, sizes: list[float]) -> None:
    """Build corpora of growing size and print the memory that each took."""
    print("| corpus | largest process | all processes | seconds | documents kept |\n|---|---|---|---|---|")
    peaks = []
    for size in sizes:
        write_jsonl(scratch / f"in{size:g}", size)
        start = time.perf_counter()
        out = scratch / f"out{size:g}"
        words = [f"source.path={scratch / f'in{size:g}'}", f"out={out}", f"steps=[{','.join(STEPS)}]"]
        process = subprocess.Popen([*COMMAND, *BUILD, *words], stdout=subprocess.DEVNULL)
        watch = Watch(process.pid)
        code = process.wait()
        watch.stop()
        if code:
            raise SystemExit(f"the build of {size} MB failed")
        peaks.append(watch)
        kept = json.loads((out / "manifest.json").read_text())["documents"]
        seconds = time.perf_counter() - start
        row = (
            f"{size:g} MB",
            f"{watch.single / 1e6:.0f} MB",
            f"{watch.total / 1e6:.0f} MB",
            f"{seconds:.0f}",
            f"{kept:,}",
        )
        print(f"| {' | '.join(row)} |", flush=True)
    print(
        f"\nThe largest corpus takes {peaks[-1].single / peaks[0].single:.2f} times the smallest one's memory in its "
        f"largest process, {peaks[-1].total / peaks[0].total:.2f} times in all.\n"
    )


def by_hand(source: Path, out: Path, logs: Path) -> float:
    """Run datatrove's blocks as its own examples do; return seconds."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    pipeline = [
        JsonlReader(str(source)),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        JsonlWriter(str(out), compression=None),
    ]
    start = time.perf_counter()
    LocalPipelineExecutor(pipeline, tasks=4, workers=1, logging_dir=str(logs)).run()
    return time.perf_counter() - start


def ours(source: Path, out: Path) -> float:
    """Run the same rules as steps of a build, up to the documents; return seconds."""
    from datatrove.executor import LocalPipelineExecutor

    import torchloom_corpus.build as building
    from torchloom.composing import compose
    from torchloom_corpus.configs import RecipeConfig

    words = ["source=jsonl", f"source.path={source}", f"out={out}", "tasks=4", "engine.workers=1"]
    plan = building.Plan(building.to_plain(compose([*words, "steps=[gopher_repetition,gopher_quality]"], RecipeConfig)))
    plan.make_folders()
    passes = plan.passes()[:-3]  # without the tokenizer's
    start = time.perf_counter()
    for number, one in enumerate(passes):
        LocalPipelineExecutor(one.pipeline, tasks=one.tasks, workers=1, logging_dir=str(out / f"logs{number}")).run()
    return time.perf_counter() - start


def measure_filters(scratch: Path, megabytes: float, laps: int) -> None:
    """Print the time of Gopher's rules as steps beside datatrove's own blocks."""
    write_jsonl(scratch / "filters", megabytes, files=4)
    by_hand(scratch / "filters", scratch / "warm", scratch / "warmlogs")  # loads its word tokenizer
    ratios, seconds = [], []
    for lap in range(laps):
        first = by_hand(scratch / "filters", scratch / f"hand{lap}", scratch / f"handlogs{lap}")
        second = ours(scratch / "filters", scratch / f"ours{lap}")
        ratios.append(second / first)
        seconds.append((first, second))
    hand, own = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(
        "| Gopher's repetition and quality rules, read and written | MB a second | seconds, beside by hand |\n|---|---|---|"
    )
    print(f"| datatrove's blocks by hand | {megabytes / hand:.2f} | 1 |")
    print(f"| `steps=[gopher_repetition,gopher_quality]` | {megabytes / own:.2f} | {statistics.median(ratios):.3f} |\n")


def measure_tokens(scratch: Path, megabytes: float, laps: int) -> None:
    """Print the time of tokenising documents into a shard beside a batch call of Hugging Face tokenizers."""
    from dataclasses import asdict

    from datatrove.data import Document

    from torchloom import registry, schema
    from torchloom_corpus.tokens import Tokenise

    texts = list(documents(megabytes))
    known = registry.current()
    component = known.get("tokenizer", "bpe")
    config = schema.to_config(component, {"vocab_size": 4096})
    tokenizer = known.load(component)(config)
    tokenizer.train(texts[:300])
    state = scratch / "tokenizer.json"
    state.write_text(tokenizer.state(), encoding="utf-8")
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(state))
    ratios, slower, rates = [], [], []
    for lap in range(laps):
        start = time.perf_counter()
        sum(len(one.ids) for one in bare.encode_batch(texts, add_special_tokens=False))
        usual = time.perf_counter() - start
        start = time.perf_counter()
        tokens = sum(len(one.ids) for one in bare.encode_batch_fast(texts, add_special_tokens=False))
        first = time.perf_counter() - start
        folders = [scratch / f"{name}{lap}" for name in ("corpus", "shards", "counts")]
        block = Tokenise(known.load(component)(config), "bpe", asdict(config), state, *folders)
        start = time.perf_counter()
        block.run([Document(text, str(number)) for number, text in enumerate(texts)])
        second = time.perf_counter() - start
        ratios.append(second / first)
        slower.append(second / usual)
        rates.append((tokens / first, tokens / usual, tokens / second))
    bare_rate, usual_rate, own_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    print("| byte-level BPE, 4,096 tokens | million tokens a second | a shard's seconds beside its |\n|---|---|---|")
    print(f"| `Tokenizer.encode_batch` alone | {usual_rate / 1e6:.2f} | {statistics.median(slower):.3f} |")
    print(f"| `Tokenizer.encode_batch_fast` alone | {bare_rate / 1e6:.2f} | {statistics.median(ratios):.3f} |")
    print(f"| a corpus's shard, hashed, counted, written to disk | {own_rate / 1e6:.2f} | 1 |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000", help="megabytes of the corpora whose memory is measured")
    parser.add_argument("--parts", default="memory,filters,tokens")
    parser.add_argument("--megabytes", type=float, default=8, help="text that the times are measured on")
    parser.add_argument("--laps", type=int, default=5)
    given = parser.parse_args()
    logger.remove()  # datatrove tells every step of every task
    print("# Building a corpus\n")
    print(
        f"`python benchmarks/corpus_build.py`: datatrove {version('datatrove')}, tokenizers {version('tokenizers')}, Python "
        f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores.\n"
    )
    with tempfile.TemporaryDirectory(prefix="torchloom-corpus-") as folder:
        scratch = Path(folder)
        if "memory" in given.parts:
            measure_memory(scratch, [float(size) for size in given.sizes.split(",")])
        if "filters" in given.parts:
            measure_filters(scratch, given.megabytes, given.laps)
        if "tokens" in given.parts:
            measure_tokens(scratch, given.megabytes, given.laps)


if __name__ == "__main__":
    main()
