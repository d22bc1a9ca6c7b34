"""Optimizers, schedulers, callbacks and loggers."""

from __future__ import annotations

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare what this plugin supplies."""
    return [
        _component("optimizer", "adamw", "optimizers:AdamW", "Adam with decoupled weight decay.", "arXiv:1711.05101"),
        _component("optimizer", "adam", "optimizers:Adam", "Adam; weight decay is an L2 penalty.", "arXiv:1412.6980"),
        _component("optimizer", "sgd", "optimizers:SGD", "Gradient descent with (Nesterov) momentum."),
        _component("scheduler", "constant", "schedulers:Constant", "The peak rate, after a linear warm-up."),
        _component("scheduler", "cosine", "schedulers:Cosine", "Warm-up, then half a cosine wave.", "arXiv:1608.03983"),
        _component("scheduler", "step", "schedulers:Step", "The rate drops by a factor every so many steps."),
        _component(
            "callback", "early_stopping", "callbacks:EarlyStopping", "Ends training that no longer gets better."
        ),
        _component("callback", "samples", "callbacks:Samples", "Writes generated texts or images as training goes on."),
        _component("logger", "csv", "loggers:CSV", "One row a log step in metrics.csv, exact and append-only."),
        _component("logger", "tensorboard", "loggers:TensorBoard", "Event files for TensorBoard."),
    ]


def _component(kind: str, name: str, target: str, summary: str, source: str = "") -> Component:
    return Component(
        kind=kind,
        name=name,
        target=f"torchloom_training.{target}",
        config=f"torchloom_training.configs:{target.partition(':')[2]}Config",
        summary=summary,
        source=source,
    )
