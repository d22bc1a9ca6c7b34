"""What the core itself declares: the kinds, the commands, and the trainer. Found like any plugin."""

from torchloom import Component, Kind, hookimpl


@hookimpl
def torchloom_kinds() -> list[Kind]:
    """Declare the kinds that a training run is made of, and the commands."""
    contracts = "torchloom.contracts"
    return [
        Kind("dataset", f"{contracts}.dataset:Dataset", "Named splits of examples"),
        Kind("tokenizer", f"{contracts}.tokenizer:Tokenizer", "Text to token ids and back"),
        Kind("architecture", f"{contracts}.architecture:Architecture", "Networks without a task"),
        Kind("attention", f"{contracts}.attention:Attention", "Kernels that compute attention"),
        Kind("objective", f"{contracts}.objective:Objective", "Tasks: loss, head and metrics"),
        Kind("optimizer", f"{contracts}.training:Optimizer", "Update rules"),
        Kind("scheduler", f"{contracts}.training:Scheduler", "Learning rate as a function of the step"),
        Kind("parallel", f"{contracts}.parallel:Parallel", "Ways to spread a run over processes"),
        Kind("trainer", "torchloom.configs:TrainerConfig", "How long to train, and on what hardware"),
        Kind("callback", f"{contracts}.training:Callback", "Things done beside training", group="callbacks", many=True),
        Kind("logger", f"{contracts}.training:Logger", "Where metrics are written", many=True),
        Kind("command", "torchloom.commands", "Words that follow torchloom", configurable=False),
    ]


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the commands, the trainer and the checkpoint callback."""
    return [
        Component(
            kind="trainer",
            name="default",
            target="torchloom.assembly:make_trainer",
            config="torchloom.configs:TrainerConfig",
            summary="Lightning's Trainer",
        ),
        Component(
            kind="callback",
            name="checkpoint",
            target="torchloom.checkpoint:CheckpointCallback",
            config="torchloom.configs:CheckpointConfig",
            summary="Keep the newest and the best state of a run",
        ),
        _command("train", "Train a model, or go on with a run"),
        _command("evaluate", "Measure a trained model on a split of its data"),
        _command("predict", "Write a trained model's answers"),
        _command("generate", "Make text or images with a trained model"),
        _command("list", "List components"),
        _command("show", "Show a component's options"),
        _command("doctor", "Check the environment and the plugins"),
    ]


def _command(name: str, summary: str) -> Component:
    return Component(
        kind="command",
        name=name,
        target=f"torchloom.commands.{name}:run",
        config=f"torchloom.commands.configs:{name.capitalize()}Config",
        summary=summary,
    )
