"""Config of the attention kernels; none has anything to set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MathAttentionConfig:
    """The reference kernel has no fields."""


@dataclass
class SDPAttentionConfig:
    """torch's fused kernel has no fields."""


@dataclass
class XFormersAttentionConfig:
    """xFormers' kernel has no fields; it picks its own operator."""
