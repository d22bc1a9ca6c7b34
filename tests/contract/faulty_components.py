"""Components that break their contracts, each in one way, to see that the suites notice."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchloom import Component, hookimpl, option
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention
from torchloom.contracts.dataset import Dataset, TensorSplit
from torchloom.contracts.spec import ImageSpec, TokenSpec
from torchloom.contracts.training import Scheduler


@dataclass
class EmptyConfig:
    """Nothing to set."""


@dataclass
class UndocumentedConfig:
    """One field that says nothing."""

    size: int = option(7, "")


class LooksAhead(Architecture):
    """Says that it is causal, but every position sees the whole row."""

    protocols = frozenset({"sequence"})
    accepts = (TokenSpec,)
    causal = True
    width = 4

    def __init__(self, config, spec, attention=None):
        super().__init__(config, spec)
        self.embedding = nn.Embedding(spec.vocab_size, self.width)

    def sequence(self, tokens, *, mask=None, state=None):
        vectors = self.embedding(tokens)
        return vectors + vectors.mean(dim=1, keepdim=True)


class Forgets(LooksAhead):
    """Its state carries nothing on."""

    def sequence(self, tokens, *, mask=None, state=None):
        return self.embedding(tokens).cumsum(dim=1)

    def new_state(self, batch_size, max_length):
        return None


class SeesTheBatch(Architecture):
    """What it says of an example depends on the others."""

    protocols = frozenset({"features"})
    accepts = (ImageSpec,)
    width = 4

    def __init__(self, config, spec, attention=None):
        super().__init__(config, spec)
        self.layer = nn.Linear(spec.channels * spec.height * spec.width, self.width)

    def features(self, inputs, *, lengths=None, encoded=None):
        vectors = self.layer(inputs.flatten(1))
        return vectors - vectors.mean(dim=0)


class IgnoresMasks(Attention):
    """Says that it honours causality, and does not."""

    supports = frozenset({"causal"})

    def attend(self, q_BHTD, k_BGSD, v_BGSD, mask, *, dropout, scale):
        return nn.functional.scaled_dot_product_attention(q_BHTD, k_BGSD, v_BGSD, scale=scale, enable_gqa=True)


class Leaks(Dataset):
    """Its validation examples stand in the training split."""

    spec = ImageSpec(1, 4, 4, num_classes=2, classes=("a", "b"))

    def split(self, name):
        generator = torch.Generator().manual_seed(0)
        images: Tensor = torch.rand(8, 1, 4, 4, generator=generator)
        return TensorSplit(image=images, label=torch.arange(8) % 2)


class Grows(Scheduler):
    """A factor above 1."""

    def factor(self, step, total_steps):
        return 1.0 + step


def _component(kind: str, cls: type, config: type = EmptyConfig) -> Component:
    name = cls.__name__.lower()
    return Component(kind, name, f"{__name__}:{cls.__name__}", f"{__name__}:{config.__name__}", "Breaks its contract")


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare them."""
    return [
        _component("architecture", LooksAhead),
        _component("architecture", Forgets),
        _component("architecture", SeesTheBatch, UndocumentedConfig),
        _component("attention", IgnoresMasks),
        _component("dataset", Leaks),
        _component("scheduler", Grows),
    ]
