"""`torchloom generate`."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    """Generate from a checkpoint: text to standard output (or ``out``), images as one PNG grid."""
    from torchloom.inference import load

    loaded = load(config.ckpt, list(config.overrides))
    prompts = [*([config.prompt] if config.prompt else []), *config.prompts]
    streaming = config.stream and config.num_samples == 1 and len(prompts) < 2 and config.out is None
    shown = False

    def show(text: str) -> None:
        nonlocal shown
        if not shown and loaded.objective.continues:
            sys.stdout.write("".join(prompts))
        shown = True
        sys.stdout.write(text)
        sys.stdout.flush()

    samples = loaded.generate(
        prompts,
        seed=config.seed,
        num_samples=config.num_samples,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        repetition_penalty=config.repetition_penalty,
        num_beams=config.num_beams,
        length_penalty=config.length_penalty,
        stop=list(config.stop),
        use_cache=config.cache,
        on_token=show if streaming else None,
    )
    if samples.images is not None:
        from torchvision.utils import make_grid, save_image

        out = Path(config.out or "samples.png")
        partial = out.with_name(f"{out.name}.partial")
        grid = make_grid(samples.images, nrow=max(1, round(len(samples.images) ** 0.5)))
        save_image(grid, partial, format="png")
        partial.replace(out)
        print(out)
    elif shown:
        print()
    elif config.out:
        partial = Path(f"{config.out}.partial")
        partial.write_text("\n\n".join(samples.texts) + "\n", encoding="utf-8")
        partial.replace(config.out)
        print(config.out)
    else:
        print("\n\n".join(samples.texts))
    return 0
