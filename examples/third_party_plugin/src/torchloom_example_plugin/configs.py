"""Options of the components. Imports no torch."""

from dataclasses import dataclass

from torchloom import option


@dataclass
class TinyResNetConfig:
    """Options of `tiny_resnet`."""

    width: int = option(16, "Channels of the first stage; each later stage has twice as many.", ge=1)
    stages: int = option(3, "Stages, each after the first halving the image's sides.", ge=1, le=5)
    blocks_per_stage: int = option(1, "Residual blocks in each stage.", ge=1)
