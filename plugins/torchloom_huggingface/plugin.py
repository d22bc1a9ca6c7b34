"""Published checkpoints: bringing them in, and giving trained models out in their layouts. Torch-free."""

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the commands."""
    return [
        Component(
            kind="command",
            name="import",
            target="torchloom_huggingface.command:bring_in",
            config="torchloom_huggingface.configs:ImportConfig",
            summary="Make a run's folder of a published checkpoint: GPT-2, Llama, BERT, T5, or a llama2.c file",
            source="https://huggingface.co/docs/transformers",
        ),
        Component(
            kind="command",
            name="export",
            target="torchloom_huggingface.command:give_out",
            config="torchloom_huggingface.configs:ExportConfig",
            summary="Write a trained model as others read it",
            source="https://huggingface.co/docs/transformers",
        ),
    ]
