"""Config dataclasses of the parallel strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom import option


@dataclass
class SingleConfig:
    """Training in one process on one device."""


@dataclass
class DDPConfig:
    """Data-parallel training: every process holds the whole model and takes its share of each batch."""

    backend: Literal["auto", "gloo", "nccl"] = option(
        "auto", "Collective library; auto is nccl on GPUs, gloo elsewhere."
    )
    find_unused_parameters: bool = option(False, "Look for parameters without a gradient in each step; costs time.")
    bucket_cap_mb: int = option(25, "Gradients that are sent together.", ge=1, unit="MiB")
