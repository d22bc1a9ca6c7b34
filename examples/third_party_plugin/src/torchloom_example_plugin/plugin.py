"""What this package adds to torchloom. Imports no torch, so `torchloom list` stays quick."""

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the architecture."""
    return [
        Component(
            kind="architecture",
            name="tiny_resnet",
            target="torchloom_example_plugin.resnet:TinyResNet",
            config="torchloom_example_plugin.configs:TinyResNetConfig",
            summary="Small residual network for images",
            source="He et al. 2016, https://arxiv.org/abs/1512.03385",
        )
    ]


@hookimpl
def torchloom_config_search_paths() -> list[str]:
    """Declare the package that holds the experiment."""
    return ["pkg://torchloom_example_plugin.conf"]
