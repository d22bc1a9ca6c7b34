"""What the suites share: the components to test, and tiny examples to test them on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchloom import registry, schema
from torchloom.component import Component
from torchloom.contracts.architecture import AdversarialPair, Architecture
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.dataset import Batch
from torchloom.contracts.spec import (
    ChatSpec,
    ImageSpec,
    LabelledTextSpec,
    QuestionSpec,
    SentencePairSpec,
    Seq2SeqSpec,
    SeriesSpec,
    Spec,
    TokenSpec,
)
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, MissingDependencyError

SPECS: tuple[Spec, ...] = (
    ImageSpec(channels=1, height=28, width=28, num_classes=3, classes=("a", "b", "c")),
    ImageSpec(channels=3, height=32, width=32, num_classes=3, classes=("a", "b", "c")),
    ImageSpec(channels=3, height=64, width=64, num_classes=3, classes=("a", "b", "c")),
    TokenSpec(vocab_size=17, context_length=12),
    LabelledTextSpec(vocab_size=17, context_length=12, num_classes=3, classes=("a", "b", "c"), pairs=True),
    SentencePairSpec(vocab_size=17, context_length=12, mask_id=1),
    QuestionSpec(vocab_size=17, context_length=12),
    ChatSpec(
        vocab_size=17,
        context_length=12,
        template="{% for message in messages %}{{ message.content }}<end>{% endfor %}",
        special_tokens=("<end>",),
        special_ids=(2,),
        end_id=2,
    ),
    Seq2SeqSpec(vocab_size=17, source_length=12, target_length=8, pad_id=0, bos_id=1, eos_id=2),
    SeriesSpec(channels=2, context_length=12, horizon=3),
    SeriesSpec(channels=2, context_length=12, num_classes=3, classes=("a", "b", "c")),
)
"""Examples small enough for any machine; a component is tested on the first that it takes."""


def each(kind: str | None = None, where: Callable[[Component], object] = bool) -> pytest.MarkDecorator:
    """Return a mark that runs a test or class for every component.

    Args:
        kind: Kind of the components; all unless given.
        where: Leaves out components for which it returns something false.
    """
    known = registry.current()
    components = [one for one in known.components(kind) if where(one)]
    named = [pytest.param(one, id=f"{known.supplier(one).distribution}/{one.kind}/{one.name}") for one in components]
    return pytest.mark.parametrize("component", named)


def load(component: Component) -> Any:
    """Import a component's target, or skip where a module that it needs is not installed."""
    try:
        return registry.current().load(component)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def default_config(component: Component, **changes: Any) -> Any:
    """Return a component's config with its defaults, but for the fields given."""
    return dataclasses.replace(schema.to_config(component, {}), **changes)


def build(component: Component, *arguments: Any) -> Any:
    """Build a component from its defaults."""
    return load(component)(default_config(component), *arguments)


def build_architecture(component: Component) -> Architecture:
    """Build an architecture on the first spec that it takes, seeded, with the kernel that it opens a group for."""
    cls = load(component)
    fitting = [spec for spec in SPECS if isinstance(spec, cls.accepts)]
    if not fitting:
        pytest.skip(f"the suite has no examples of {', '.join(spec.__name__ for spec in cls.accepts) or 'nothing'}")
    refusals = []
    for spec in fitting:
        torch.manual_seed(0)
        try:
            built: Architecture = cls(default_config(component), spec, kernel_for(component))
        except ConfigError as error:
            refusals.append(f"{spec}: {error}")
        else:
            return built
    pytest.fail("its defaults fit none of the suite's examples\n" + "\n".join(refusals))


def kernel_for(component: Component) -> Attention | None:
    """Return the attention kernel that an architecture takes by default, or None if it takes none."""
    name = component.slots.get("attention")
    return None if name is None else build(registry.current().get("attention", name))


def trained_tokenizer(component: Component) -> Tokenizer:
    """Build a tokenizer and train it on Python's own documentation, or skip one that needs a setting for that."""
    tokenizer: Tokenizer = build(component)
    if not tokenizer.trained:
        try:
            tokenizer.train([TEXT])
        except ConfigError as error:
            pytest.skip(str(error))
    return tokenizer


def read_text() -> str:
    """Return a long English text that every Python carries, each paragraph once: topics repeat each other's."""
    from pydoc_data.topics import topics

    paragraphs = [paragraph for name in sorted(topics) for paragraph in topics[name].split("\n\n")]
    return "\n\n".join(dict.fromkeys(paragraphs))


TEXT = read_text()


def batch_of(spec: Spec, size: int, seed: int = 0) -> Batch:
    """Return random examples as a dataset of that spec gives them."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(spec, ImageSpec):
        shape = (size, spec.channels, spec.height, spec.width)
        labels = torch.randint(max(spec.num_classes, 1), (size,), generator=generator)
        return {"image": torch.rand(shape, generator=generator), "label": labels}
    if isinstance(spec, SeriesSpec):
        drawn = torch.randn(size, spec.context_length + spec.horizon, spec.channels, generator=generator)
        labels = torch.randint(max(spec.num_classes, 1), (size,), generator=generator)
        series, future = drawn.split((spec.context_length, spec.horizon), dim=1)
        return {"series": series, **({"future": future} if spec.horizon else {"label": labels})}
    if isinstance(spec, Seq2SeqSpec):
        source = torch.randint(3, spec.vocab_size, (size, spec.source_length), generator=generator)
        target = torch.randint(3, spec.vocab_size, (size, spec.target_length + 1), generator=generator)
        target[:, 0], target[:, -1] = spec.bos_id or 0, spec.eos_id or 0
        full = torch.ones(size, dtype=torch.int64)
        lengths = {"source_length": full * spec.source_length, "target_length": full * (spec.target_length + 1)}
        return {"source": source, "target": target, **lengths}
    assert isinstance(spec, TokenSpec)
    if isinstance(spec, LabelledTextSpec | SentencePairSpec | QuestionSpec):
        return _texts(spec, size, generator)
    batch = {"tokens": torch.randint(spec.vocab_size, (size, spec.context_length + 1), generator=generator)}
    if isinstance(spec, ChatSpec):
        places = torch.arange(spec.context_length + 1).expand(size, -1)
        batch |= {"length": torch.full((size,), spec.context_length + 1), "answer": places % 6 > 2}
    return batch


def _texts(spec: TokenSpec, size: int, generator: torch.Generator) -> Batch:
    """Return pairs of texts of equal length, with labels, or with an answer in the second text."""
    length = spec.context_length
    tokens = torch.randint(3, spec.vocab_size, (size, length), generator=generator)
    segments = (torch.arange(length) >= length // 2).long().expand(size, -1)
    batch = {"tokens": tokens, "length": torch.full((size,), length), "segments": segments}
    if not isinstance(spec, QuestionSpec):
        labels = torch.randint(getattr(spec, "num_classes", 2), (size,), generator=generator)
        return {**batch, "label": labels}
    start = torch.randint(length // 2, length - 2, (size,), generator=generator)
    place = torch.arange(length) - length // 2  # each token of the context stands for one letter
    offsets = torch.stack((place, place + 1), -1).masked_fill(place[:, None] < 0, -1).expand(size, -1, -1)
    context = torch.full((size, length - length // 2), ord("a"), dtype=torch.uint8)
    answers = torch.tensor([[ord("a"), ord("a"), 0]], dtype=torch.uint8).expand(size, -1)
    numbers = torch.arange(size)
    spans = {"start": start, "end": start + 1, "example": numbers, "offsets": offsets}
    return {**batch, **spans, "context": context, "answers": answers}


def inputs_of(spec: Spec, size: int, seed: int = 0) -> Tensor:
    """Return what an architecture takes of such examples: images, or ``context_length`` token ids a row."""
    batch = batch_of(spec, size, seed)
    for name in ("image", "series", "source"):
        if name in batch:
            return batch[name]
    return batch["tokens"][:, :-1]


class TinyNetwork(Architecture):
    """The least that follows `features`, `sequence` and `seq2seq`, so that objectives are tested on no plugin's network."""

    protocols = frozenset({"features", "sequence", "seq2seq"})
    accepts = (ImageSpec, TokenSpec, Seq2SeqSpec, SeriesSpec)
    width = 8

    def __init__(self, spec: Spec, *, causal: bool = True) -> None:
        super().__init__(None, spec)
        torch.manual_seed(0)
        self.causal = causal
        self.embedding = None
        if isinstance(spec, TokenSpec | Seq2SeqSpec):
            self.embedding = nn.Embedding(spec.vocab_size, self.width)
        self.layer = nn.LazyLinear(self.width)
        self.features(inputs_of(spec, 1))

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map each example to ``(batch, width)``, looking at the first token of a row only."""
        if self.embedding is not None:
            return torch.tanh(self.layer(self.embedding(inputs[:, 0])))
        return torch.tanh(self.layer(inputs.flatten(1)))

    def sequence(self, tokens: Tensor, *, mask: AttentionMask | None = None, state: Any = None) -> Tensor:
        """Map each position to ``(batch, seq, width)``, by its own token alone."""
        assert self.embedding is not None
        return torch.tanh(self.layer(self.embedding(tokens)))

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Tensor:
        """Map each source to ``(batch, width)``, looking at its first token only."""
        return self.features(source)

    def decode(self, target: Tensor, memory: Tensor, *, state: Any = None) -> Tensor:
        """Map each position of the target to ``(batch, seq, width)``, by its own token and the source's vector."""
        return self.sequence(target) + memory[:, None]

    def new_state(self, batch_size: int, max_length: int) -> object:
        """Return a state that holds nothing, since no position looks back."""
        return object()


class TinyPair(AdversarialPair):
    """The least adversarial pair."""

    accepts = (ImageSpec,)
    latent_dim = 4

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(None, spec)
        torch.manual_seed(0)
        self.width = self.latent_dim
        image = (spec.channels, spec.height, spec.width)
        pixels = spec.channels * spec.height * spec.width
        self.generator = nn.Sequential(nn.Linear(self.latent_dim, pixels), nn.Tanh(), nn.Unflatten(1, image))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1), nn.Flatten(0))


def differing(left: Batch, right: Batch) -> Iterator[str]:
    """Yield the names under which two batches differ."""
    yield from left.keys() ^ right.keys()
    yield from (name for name in left.keys() & right.keys() if not torch.equal(left[name], right[name]))


def prefixes(length: int) -> Sequence[int]:
    """Return a few places to cut a sequence at, the ends included."""
    return sorted({1, length // 2, length - 1})
