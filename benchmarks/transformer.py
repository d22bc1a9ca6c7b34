"""Tokens per second of the decoder, in training and in generation, beside what people use in its place.

Training, on the same text, shape and precision (float32), AdamW and clipping to a norm of 1 everywhere:

- nanoGPT's network (`architecture=nanogpt`): torchloom; a loop written by hand as nanoGPT's is described: windows at
  random places of a memory-mapped file, one fused AdamW, no framework; and transformers' Trainer on GPT2LMHeadModel.
- Llama's network (`architecture=decoder`): torchloom; litgpt's own `pretrain.setup`, which compiles the network, beside
  torchloom that does so too, and the same without; transformers' Trainer on LlamaForCausalLM.

torchloom runs as a person runs it: Rich bar, rows of metrics in a CSV file, checkpoints. The others have their defaults but
for what the shape asks for and litgpt's precision, which is bf16-mixed even on a CPU. Each contender is a process of its
own; they hand each other the machine every few steps, so that its moods strike all of them alike. Ratios are taken turn
by turn, and their medians reported.

Generation, after a short training: torchloom's own against `generate` of transformers, on the weights that
`torchloom export to=huggingface` wrote, both with a cache, in turns in one process.

    python benchmarks/transformer.py > benchmarks/results/transformer.md

litgpt and transformers want different releases of huggingface-hub: where litgpt is installed in an environment of its own,
`--litgpt` names that one's interpreter. A contender that is not installed is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

os.environ["FORCE_COLOR"] = "1"  # the bar is drawn although standard error is no terminal here

PROMPT, NEW_TOKENS = "def open(file, m", 256
TEMPERATURE, TOP_K = 0.8, 50
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


@dataclass(frozen=True)
class Shape:
    """A network's shape, what it is trained on, and how often the contenders take turns."""

    name: str
    num_layers: int
    num_heads: int
    d_model: int
    context: int
    batch: int
    steps_a_turn: int
    turns: int

    @property
    def ffn_dim(self) -> int:
        """Hidden width of a gated layer, as `architecture=decoder` has it."""
        return math.ceil(8 * self.d_model / 3 / 8) * 8

    @property
    def words(self) -> list[str]:
        """The command line that gives torchloom this shape."""
        return [
            f"architecture.num_layers={self.num_layers}",
            f"architecture.num_heads={self.num_heads}",
            f"architecture.d_model={self.d_model}",
            f"dataset.context_length={self.context}",
            f"dataset.batch_size={self.batch}",
            "tokenizer.special_tokens=[unk]",
            "trainer.accelerator=cpu",
            "trainer.limit_val_batches=0",
            "trainer.limit_test_batches=0",
            "callbacks=[checkpoint]",
        ]


SHAPES = {
    "small": Shape("small", num_layers=4, num_heads=4, d_model=128, context=64, batch=12, steps_a_turn=5, turns=11),
    "larger": Shape("larger", num_layers=6, num_heads=4, d_model=256, context=256, batch=8, steps_a_turn=2, turns=7),
}


class Turns:
    """A contender's side of taking turns: it works, tells how long it took, and waits until it is let go on."""

    def __init__(self, steps_a_turn: int, clock: str, answers: TextIO) -> None:
        self.steps_a_turn, self.now, self.answers = steps_a_turn, CLOCKS[clock], answers
        self.steps = 0
        self.started = self.now()

    def step(self) -> None:
        """To be called behind every training step."""
        self.steps += 1
        if self.steps % self.steps_a_turn == 0:
            print(self.now() - self.started, file=self.answers, flush=True)
            sys.stdin.readline()
            self.started = self.now()


# ---------------------------------------------------------------------------------------------------- contenders


def torchloom_run(shape: Shape, folder: Path, turns: Turns, experiment: str, compile: bool = False) -> None:
    import pytorch_lightning as pl

    from torchloom import assembly, composing, run

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            turns.step()

    words = [f"experiment={experiment}", *shape.words, "trainer.max_steps=1000000", f"compile={str(compile).lower()}"]
    (folder / "run").mkdir()
    with run._quiet():
        made = assembly.assemble(composing.compose(words), folder / "run")
        made.trainer.callbacks.append(Clock())
        made.trainer.fit(made.module, datamodule=made.data)


def hand_run(shape: Shape, folder: Path, turns: Turns, compile: bool = False) -> None:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm_1, self.norm_2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
            self.qkv, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, width = x.shape
            q, k, v = (
                part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                for part in self.qkv(self.norm_1(x)).split(width, dim=2)
            )
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.mix(seen.transpose(1, 2).contiguous().view(batch, length, width))
            return x + self.down(F.gelu(self.up(self.norm_2(x))))

    class Network(nn.Module):
        def __init__(self, vocabulary: int) -> None:
            super().__init__()
            self.tokens, self.places = (
                nn.Embedding(vocabulary, shape.d_model),
                nn.Embedding(shape.context, shape.d_model),
            )
            self.layers = nn.ModuleList(Layer(shape.d_model, shape.num_heads) for _ in range(shape.num_layers))
            self.norm = nn.LayerNorm(shape.d_model, bias=False)
            self.head = nn.Linear(shape.d_model, vocabulary, bias=False)
            self.head.weight = self.tokens.weight
            for name, weight in self.named_parameters():
                if weight.ndim == 2:
                    adds = name.endswith(("mix.weight", "down.weight"))
                    nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.num_layers) if adds else 0.02)

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
            for layer in self.layers:
                x = layer(x)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    text = np.load(folder / "tokens.npy", mmap_mode="r")
    network = Network(int(text.max()) + 1)
    if compile:
        network.compile()
    matrices = [weight for weight in network.parameters() if weight.ndim == 2]
    vectors = [weight for weight in network.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    for step in range(10**6):
        rate = 1e-3 * min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        places = torch.randint(len(text) - shape.context, (shape.batch,))
        windows = torch.stack([torch.from_numpy(text[at : at + shape.context + 1].astype(np.int64)) for at in places])
        loss = network(windows[:, :-1], windows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
        turns.step()


def trainer_run(shape: Shape, folder: Path, turns: Turns, network: str, compile: bool = False) -> None:
    import numpy as np
    import torch
    import transformers

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step()

    text = torch.from_numpy(np.load(folder / "tokens.npy").astype(np.int64))
    vocabulary = int(text.max()) + 1
    windows = text[: len(text) // shape.context * shape.context].view(-1, shape.context)
    rows = [{"input_ids": row, "labels": row} for row in windows]
    if network == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=shape.context,
            n_embd=shape.d_model,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
        model: Any = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.d_model,
            intermediate_size=shape.ffn_dim,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = transformers.LlamaForCausalLM(config)
    settings = transformers.TrainingArguments(
        output_dir=str(folder / f"trainer-{network}"),
        torch_compile=compile,
        per_device_train_batch_size=shape.batch,
        dataloader_drop_last=True,  # as the others do: a smaller last batch would count as a step
        max_steps=10**6,
    )
    transformers.Trainer(model, settings, train_dataset=rows, callbacks=[Clock()]).train()


def litgpt_run(shape: Shape, folder: Path, turns: Turns, compile: bool = True) -> None:
    import numpy as np
    import torch
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    torch._dynamo.config.disable = not compile
    text = torch.from_numpy(np.load(folder / "tokens.npy").astype(np.int64))
    windows = text[: len(text) // (shape.context + 1) * (shape.context + 1)].view(-1, shape.context + 1)

    def timed(rows: list[torch.Tensor]) -> torch.Tensor:
        turns.step()  # the step before has ended when the next batch is asked for
        return torch.stack(rows)

    class Windows(DataModule):  # type: ignore[misc]
        def connect(self, *_: Any, **__: Any) -> None: ...

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(windows, shape.batch, shuffle=True, drop_last=True, collate_fn=timed)

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(windows[: 2 * shape.batch], shape.batch)

    config = Config(
        name="llama",
        block_size=shape.context,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_embd=shape.d_model,
        vocab_size=int(text.max()) + 1,
        padded_vocab_size=int(text.max()) + 1,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.ffn_dim,
    )
    train = TrainArgs(
        global_batch_size=shape.batch,
        micro_batch_size=shape.batch,
        max_tokens=10**12,
        max_norm=1.0,
        tie_embeddings=True,
    )
    pretrain.setup(
        "llama",
        model_config=config,
        out_dir=folder / f"litgpt-{compile}",
        precision="32-true",
        data=Windows(),
        train=train,
        eval=EvalArgs(interval=10**6),
        devices=1,
    )


@dataclass(frozen=True)
class Contender:
    """Who trains.

    Attributes:
        label: Its name on the page.
        needs: The package it cannot do without.
        target: What the ratio to it should be, if it is a peer.
        run: Trains, and takes turns.
        against: The contender of ours that it is compared with.
    """

    label: str
    needs: str
    target: float | None
    run: Callable[[Shape, Path, Turns], None]
    against: str = "torchloom"


def trainers(network: str) -> dict[str, Contender]:
    """Return transformers' Trainer as it is, and told to compile."""
    plain, compiled = partial(trainer_run, network=network), partial(trainer_run, network=network, compile=True)
    return {
        network: Contender("transformers' Trainer", "transformers", 1.2, plain),
        f"{network}-compiled": Contender(
            "transformers' Trainer, compiled", "transformers", 1.2, compiled, against="compiled"
        ),
    }


TRAINING = {
    "nanoGPT's network": {
        "torchloom": Contender("torchloom", "torchloom", None, partial(torchloom_run, experiment="llm_nanogpt")),
        "hand": Contender("loop by hand", "torch", 1.0, hand_run),
        "compiled": Contender(
            "torchloom, `compile=true`",
            "torchloom",
            None,
            partial(torchloom_run, experiment="llm_nanogpt", compile=True),
        ),
        "hand-compiled": Contender(
            "loop by hand, compiled", "torch", 1.0, partial(hand_run, compile=True), against="compiled"
        ),
        **trainers("gpt2"),
    },
    "Llama's network": {
        "torchloom": Contender("torchloom", "torchloom", None, partial(torchloom_run, experiment="llm")),
        "compiled": Contender(
            "torchloom, `compile=true`", "torchloom", None, partial(torchloom_run, experiment="llm", compile=True)
        ),
        "litgpt": Contender("litgpt", "litgpt", 1.2, litgpt_run, against="compiled"),
        "litgpt-eager": Contender("litgpt, not compiled", "litgpt", 1.2, partial(litgpt_run, compile=False)),
        **trainers("llama"),
    },
}


def contend(network: str, contender: str, shape: Shape, clock: str, folder: Path) -> None:
    """Be a contender: answer on what is standard output now, and let everything else be printed to a file."""
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    TRAINING[network][contender].run(shape, folder, Turns(shape.steps_a_turn, clock, answers))


# ----------------------------------------------------------------------------------------------------- the referee


def interpreter(contender: Contender, litgpt: str) -> str:
    return litgpt if contender.needs == "litgpt" else sys.executable


def release(package: str, python: str) -> str | None:
    """Return the version of a package that an interpreter has, or None."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    ended = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return ended.stdout.strip() or None


def tokens(folder: Path) -> None:
    """Write the training text's token ids for the contenders that are not torchloom."""
    import numpy as np
    import torch

    from torchloom import assembly, composing, run

    shape = SHAPES["small"]
    with run._quiet():
        made = assembly.assemble(composing.compose(["experiment=llm", *shape.words]), folder / "tokens")
    loader = made.data.loader("train")
    rows = loader.split.batch(torch.arange(len(loader.split)))["tokens"]
    np.save(folder / "tokens.npy", rows[:, :-1].flatten().numpy().astype(np.uint16))


def race(network: str, shape: Shape, options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Let the contenders take turns and return the seconds a step of each one's turns."""
    processes: dict[str, subprocess.Popen[str]] = {}
    seconds: dict[str, list[float]] = {}
    for name, contender in TRAINING[network].items():
        python = interpreter(contender, options.litgpt)
        if name in options.without or release(contender.needs, python) is None:
            continue
        place = folder / shape.name / network / name
        place.mkdir(parents=True)
        (place / "tokens.npy").symlink_to(folder / "tokens.npy")
        processes[name] = subprocess.Popen(
            [python, __file__, "--contend", network, name, json.dumps(asdict(shape)), options.clock, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds[name] = []

    def answer(name: str) -> float:
        stream = processes[name].stdout
        assert stream is not None
        line = stream.readline()
        if not line:
            log = (folder / shape.name / network / name / "log.txt").read_text(errors="replace")
            raise RuntimeError(f"{name} on {network} ended:\n{log[-3000:]}")
        return float(line) / shape.steps_a_turn

    try:
        for name in processes:
            answer(name)  # all of them start, compile and warm up at once
        for turn in range(shape.turns + 1):
            for name, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                took = answer(name)
                if turn:  # the first turn alone warms up too
                    seconds[name].append(took)
    finally:
        for process in processes.values():
            process.kill()  # a request to end would wait for the step that waits for its turn
            process.wait()
    return seconds


def training_table(shapes: list[Shape], options: argparse.Namespace, folder: Path) -> Iterator[str]:
    yield "| network | shape | contender | ms a step | tokens/s | torchloom's tokens/s to its | target |"
    yield "|---|---|---|---|---|---|---|"
    for shape in shapes:
        for network, contenders in TRAINING.items():
            seconds = race(network, shape, options, folder)
            for name, contender in contenders.items():
                row = [network, shape.name, contender.label]
                if name not in seconds:
                    why = "left out" if name in options.without else "not installed"
                    yield f"| {' | '.join(row)} | {why} | | | |"
                    continue
                median = statistics.median(seconds[name])
                row += [f"{median * 1e3:.1f}", f"{shape.batch * shape.context / median:,.0f}"]
                row += ["", ""] if contender.target is None else [ratio(seconds[name], seconds[contender.against])]
                row += [] if contender.target is None else [f"{contender.target:.1f}"]
                yield f"| {' | '.join(row)} |"


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Return how many times faster ours is: median, lowest and highest of all turns."""
    ratios = sorted(their / our for their, our in zip(theirs, ours, strict=True))
    return f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def generation_table(shapes: list[Shape], turns: int, clock: str, folder: Path) -> Iterator[str]:
    yield "| shape | batch | tokens are | torchloom, tokens/s | transformers, tokens/s | ratio | target | same tokens |"
    yield "|---|---|---|---|---|---|---|---|"
    if release("transformers", sys.executable) is None:
        yield "| | | | | transformers is not installed | | | |"
        return
    for shape in shapes:
        ours, theirs = trained(shape, folder)
        for batch in (1, 8):
            for greedy in (True, False):
                mine, other, same = generations(ours, theirs, batch, greedy, turns, CLOCKS[clock])
                row = [
                    shape.name,
                    str(batch),
                    "the likeliest" if greedy else f"drawn (temperature {TEMPERATURE}, top {TOP_K})",
                ]
                row += [f"{batch * NEW_TOKENS / statistics.median(each):,.0f}" for each in (mine, other)]
                row += [ratio(other, mine), "1.5", ("yes" if same else "no") if greedy else ""]
                yield f"| {' | '.join(row)} |"


def trained(shape: Shape, folder: Path) -> tuple[Any, Any]:
    """Return a decoder that has been trained a little, as torchloom and as transformers load it."""
    import transformers

    from torchloom.inference import load

    place, out = folder / f"run-{shape.name}", folder / f"exported-{shape.name}"
    longer = [f"dataset.context_length={NEW_TOKENS + 64}", "dataset.batch_size=4", "trainer.max_steps=60"]
    command = [sys.executable, "-m", "torchloom"]
    run = [*shape.words, *longer, "trainer.progress=none", f"hydra.run.dir={place}"]
    subprocess.run([*command, "train", "experiment=llm", *run], check=True, capture_output=True)
    checkpoint = next((place / "checkpoints").glob("*.ckpt"))
    export = ["export", f"ckpt={checkpoint}", "to=huggingface", f"out={out}"]
    subprocess.run([*command, *export], check=True, capture_output=True)
    return load(checkpoint, device="cpu"), transformers.AutoModelForCausalLM.from_pretrained(out).eval()


def generations(
    ours: Any, theirs: Any, batch: int, greedy: bool, turns: int, now: Callable[[], float]
) -> tuple[list[float], list[float], bool]:
    """Return the seconds of each one's turns, and whether both gave the same text."""
    import torch

    ids = ours.tokenizer.encode(PROMPT)[None].repeat(batch, 1)
    drawn = {"do_sample": False} if greedy else {"do_sample": True, "temperature": TEMPERATURE, "top_k": TOP_K}
    settings = {"temperature": 0.0} if greedy else {"temperature": TEMPERATURE, "top_k": TOP_K}
    mine, other, same = [], [], True
    for turn in range(turns + 1):
        begun = now()
        made = ours.generate(PROMPT, num_samples=batch, max_new_tokens=NEW_TOKENS, **settings)
        between = now()
        rows = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, **drawn)
        ended = now()
        if turn:  # the first warms up
            mine.append(between - begun)
            other.append(ended - between)
        same = same and list(made.texts) == [ours.tokenizer.decode(row) for row in rows.tolist()]
    return mine, other, same


def heading(options: argparse.Namespace) -> str:
    import torch

    packages = ["torchloom", "torch", "pytorch-lightning", "transformers"]
    found = {package: release(package, sys.executable) for package in packages}
    found["litgpt"] = release("litgpt", options.litgpt)
    versions = ", ".join(f"{package} {number}" for package, number in found.items() if number)
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    missing = [package for package, number in found.items() if number is None]
    told = "Times are processor seconds of the thread that computes, since others used the machine too."
    clock = f" {told}" if options.clock == "cpu" else ""
    given = [word for word in sys.argv[1:] if word not in ("--litgpt", options.litgpt)]  # no folders
    words = " ".join(["python benchmarks/transformer.py", *given])
    note = f" Not installed, and left out: {', '.join(missing)}." if missing else ""
    return (
        f"`{words}` on {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} of "
        f"them used, load average {load} at the start; Python {platform.python_version()}, {versions}.{clock}{note}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litgpt", default=sys.executable, help="interpreter of the environment that has litgpt")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor seconds of the computing thread, for busy machines and OMP_NUM_THREADS=1",
    )
    parser.add_argument("--without", nargs="+", default=[], help="contenders to leave out, such as litgpt")
    parser.add_argument("--only", choices=("training", "generation"), help="leave the other part out")
    parser.add_argument("--turns", type=int, help="turns that are counted")
    parser.add_argument("--contend", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        network, contender, shape, clock, place = options.contend
        contend(network, contender, Shape(**json.loads(shape)), clock, Path(place))
        return
    shapes = [replace(SHAPES[name], turns=options.turns or SHAPES[name].turns) for name in options.shapes]
    print(f"# Speed of the decoder\n\n{heading(options)}")
    with tempfile.TemporaryDirectory(prefix="torchloom-benchmark-") as scratch:
        folder = Path(scratch)
        if options.only != "generation":
            print("## Training\n")
            for shape in shapes:
                print(
                    f"- {shape.name}: {shape.num_layers} layers, {shape.num_heads} heads, width {shape.d_model}, context "
                    f"{shape.context}, batch {shape.batch}; {shape.turns} turns of {shape.steps_a_turn} steps."
                )
            print()
            tokens(folder)
            for line in training_table(shapes, options, folder):
                print(line, flush=True)
        if options.only != "training":
            print(
                f"\n## Generation\n\n{NEW_TOKENS} new tokens behind a prompt of {len(PROMPT)}, {options.turns or 5} turns.\n"
            )
            for line in generation_table(shapes, options.turns or 5, options.clock, folder):
                print(line, flush=True)


if __name__ == "__main__":
    main()
