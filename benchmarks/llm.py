"""Loss of the character models on Tiny Shakespeare, in nanoGPT's small CPU shape and budget.

    python benchmarks/llm.py --data FOLDER [--seeds 2] [--runs FOLDER]

FOLDER holds tinyshakespeare/input.txt. Both experiments have 4 layers, 4 heads, width 128, context 64, batch 12 and 2,000
steps; `llm_nanogpt` is nanoGPT's model and training, `llm` this project's own. The loss is over the whole validation
split, the last tenth of the text, after the last step.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _runs import Runs, heading, parser, spread, table

EXPERIMENTS = {"llm": "at most 1.85", "llm_nanogpt": "1.90 ± 0.03"}


def main() -> int:
    options = parser(__doc__, seeds=2).parse_args()
    text = Path(options.data or "") / "tinyshakespeare" / "input.txt"
    if not text.is_file():
        sys.exit(f"{text}: there is no such file; name the folder above it with --data or TORCHLOOM_DATA")
    runs = Runs(options.runs)
    found = {
        name: [
            runs.train(
                f"experiment={name}",
                "dataset=text_files",
                f"dataset.path={text}",
                "tokenizer.special_tokens=[]",
                "trainer.max_steps=2000",
                f"seed={seed}",
            )
            for seed in range(options.seeds)
        ]
        for name in EXPERIMENTS
    }
    rows = []
    for name, summaries in found.items():
        losses = [summary["metrics"]["val/loss"] for summary in summaries]
        rates = [summary["throughput"]["tokens_per_second"] for summary in summaries]
        rows.append(
            [
                f"`experiment={name}`",
                f"{summaries[0]['parameters']['total']:,}",
                spread(losses),
                ", ".join(f"{loss:.4f}" for loss in losses),
                EXPERIMENTS[name],
                f"{max(rates):,.0f}",
            ]
        )
    print(heading("Tiny Shakespeare, character by character", options))
    print(
        "Loss in nats a character over the whole validation split (the last tenth), after 2,000 steps of 12 x 64 characters."
    )
    print("nanoGPT's README gives 1.88 for its small CPU shape, estimated on 20 batches.\n")
    print(table(["", "parameters", "val/loss", "each seed", "aim", "tokens/s, fastest run"], rows))
    mean = {name: sum(one["metrics"]["val/loss"] for one in found[name]) / options.seeds for name in found}
    return 0 if mean["llm"] <= 1.85 and abs(mean["llm_nanogpt"] - 1.90) <= 0.03 else 1


if __name__ == "__main__":
    sys.exit(main())
