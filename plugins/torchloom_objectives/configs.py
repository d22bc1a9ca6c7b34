"""Settings of objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom import option


@dataclass
class ClassificationConfig:
    """Settings of `classification`."""

    label_smoothing: float = option(
        0.0, "Share of the target that is spread over all classes.", ge=0, lt=1, source="arXiv:1512.00567, section 7"
    )


@dataclass
class CLMConfig:
    """Settings of `clm`."""

    positions: Literal["all", "last"] = option(
        "all", "Predict the token after every position, or only the one after the whole window (many-to-one)."
    )
    bias: bool = option(False, "Give the output layer a bias.")


@dataclass
class AdversarialConfig:
    """Settings of `adversarial`."""

    loss: Literal["bce", "hinge", "wgan_gp"] = option(
        "bce", "Cross-entropy (non-saturating), hinge, or Wasserstein with gradient penalty."
    )
    n_critic: int | None = option(
        None, "Discriminator steps to one of the generator; 5 for wgan_gp, else 1, unless given.", ge=1, unit="steps"
    )
    gradient_penalty: float = option(10.0, "Weight of the penalty of wgan_gp.", ge=0, source="arXiv:1704.00028")
    discriminator_lr: float | None = option(
        None, "Peak learning rate of the discriminator; optimizer.lr if none.", ge=0
    )
    generator_lr: float | None = option(None, "Peak learning rate of the generator; optimizer.lr if none.", ge=0)
    instance_noise: float = option(
        0.0,
        "Deviation of the normal noise added to all images that the discriminator sees, whose values run from -1 to 1.",
        ge=0,
        source="arXiv:1610.04490, appendix",
    )
