"""Architectures: networks without a task. A head, which the objective brings, turns their vectors into answers.

Protocols, each a method of that name:

=====================  =====================================================================================
``features``           one vector an example: ``(batch, width)``
``sequence``           one vector a position: ``(batch, seq, width)``
``seq2seq``            one vector a position of a second sequence, which may look at the first: ``(batch, seq, width)``
``adversarial_pair``   no method but two modules, ``generator`` and ``discriminator``, and ``latent_dim``
=====================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import UnsupportedError

_restoring: ContextVar[bool] = ContextVar("restoring", default=False)


@contextmanager
def restoring() -> Iterator[None]:
    """Build architectures without the published weights that their configs name, since a checkpoint brings all weights.

    So a checkpoint is rebuilt where neither the weights' file nor a network is at hand.
    """
    token = _restoring.set(True)
    try:
        yield
    finally:
        _restoring.reset(token)


def is_restoring() -> bool:
    """Return whether a checkpoint is about to be loaded into what is being built (see `restoring`)."""
    return _restoring.get()


class Architecture(nn.Module):
    """Base of all architectures.

    Attributes:
        protocols: The protocols it follows.
        accepts: Kinds of examples it takes.
        causal: Whether position ``i`` of `sequence` depends on positions up to ``i`` alone.
        takes_segments: Whether `features` and `sequence` take a further ``segments=``: which text of an example each
            token belongs to, int64 ``(batch, seq)``, all to the first unless given. To others nothing but special
            tokens tells the texts apart.
        width: Length of the vectors it gives.
    """

    protocols: ClassVar[frozenset[str]] = frozenset()
    accepts: ClassVar[tuple[type[Spec], ...]] = ()
    takes_attention: ClassVar[bool] = False
    takes_segments: ClassVar[bool] = False
    causal: bool = False
    width: int

    def __init__(self, config: Any, spec: Spec, attention: Attention | None = None) -> None:
        """Build and initialise the network.

        Args:
            config: Its config dataclass.
            spec: What the dataset gives, of a type in `accepts`.
            attention: The kernel, if `takes_attention`.

        Raises:
            ConfigError: Fields that contradict each other or the spec; all of them at once.
        """
        super().__init__()
        self.config = config
        self.spec = spec
        self._frozen: list[nn.Module] = []

    def take_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Take the data's tokenizer, trained, before anything is computed: for what must be read as the data is.

        Raises:
            DataError: What it reads is missing or unusable.
        """

    def freeze(self, modules: Sequence[nn.Module]) -> None:
        """Let parts of the network learn no more, and keep them in evaluation mode."""
        for module in modules:
            module.requires_grad_(False)
        self._frozen += modules
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for module in self._frozen:
            # The whole backbone may be frozen; its own method would come back here.
            nn.Module.train(module, False)
        return self

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map each example to one vector.

        Args:
            inputs: Images ``(batch, channels, height, width)`` in ``[0, 1]``, token ids ``(batch, seq)``, or vectors
                ``(batch, seq, channels)`` of a series.
            lengths: Real positions of each row, ``(batch,)``; all of them unless given.
            encoded: What `frozen_stage` gave for these inputs, ``(batch, ...)``; the inputs are then not looked at.

        Returns:
            ``(batch, width)``.

        Raises:
            UnsupportedError: It does not follow this protocol.
        """
        raise UnsupportedError(f"{type(self).__name__} does not follow the protocol 'features'")

    def sequence(self, tokens: Tensor, *, mask: AttentionMask | None = None, state: Any = None) -> Tensor:
        """Map each position to one vector.

        Args:
            tokens: int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            mask: Structure beyond the architecture's own causality: key lengths, documents.
            state: What `new_state` returned, to continue from; changed in place so that the next call goes on behind
                these tokens. Without one, the tokens begin a sequence.

        Returns:
            ``(batch, seq, width)``.

        Raises:
            UnsupportedError: It does not follow this protocol, or does not honour a structure of the mask.
        """
        raise UnsupportedError(f"{type(self).__name__} does not follow the protocol 'sequence'")

    def seq2seq(self, source: Tensor, target: Tensor, *, source_lengths: Tensor | None = None) -> Tensor:
        """Map each position of a second sequence to one vector that depends on it, on those before, and on the first.

        Args:
            source: int64 ``(batch, source_seq)``.
            target: int64 ``(batch, target_seq)``.
            source_lengths: Real tokens of each source, ``(batch,)``; all of them unless given.

        Returns:
            ``(batch, target_seq, width)``; equal to ``decode(target, encode(source, source_lengths))``.

        Raises:
            UnsupportedError: It does not follow this protocol.
        """
        return self.decode(target, self.encode(source, source_lengths))

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Any:
        """Return what `decode` needs to know of the first sequence of `seq2seq`, whatever that is.

        Indexed by rows, int64 ``(new batch,)``, it gives what is known of these, as a tensor does; a beam search, whose
        candidates share a sequence, needs it.

        Raises:
            UnsupportedError: It does not follow this protocol.
        """
        raise UnsupportedError(f"{type(self).__name__} does not follow the protocol 'seq2seq'")

    def decode(self, target: Tensor, memory: Any, *, state: Any = None) -> Tensor:
        """Map each position of the second sequence of `seq2seq` to one vector.

        Args:
            target: int64 ``(batch, target_seq)``.
            memory: From `encode`, of as many rows.
            state: What `new_state` returned, to continue from, as in `sequence`.

        Returns:
            ``(batch, target_seq, width)``.

        Raises:
            UnsupportedError: It does not follow this protocol.
        """
        raise UnsupportedError(f"{type(self).__name__} does not follow the protocol 'seq2seq'")

    def new_state(self, batch_size: int, max_length: int) -> Any:
        """Return an empty state (a KV cache, a recurrent state) for stepwise `sequence` calls under `torch.no_grad`.

        Its method ``reorder(rows)`` lets row ``i`` go on from what row ``rows[i]`` was, int64 ``(batch,)``; a beam search
        needs it.

        Args:
            batch_size: Sequences that are continued together.
            max_length: Most tokens that will be fed in all.

        Raises:
            UnsupportedError: It keeps no state.
        """
        raise UnsupportedError(f"{type(self).__name__} keeps no state for generation")

    def input_embedding(self) -> nn.Embedding | None:
        """Return the token embedding that a head's output matrix shall share, or None if nothing is tied."""
        return None

    def blocks(self) -> Sequence[nn.Module]:
        """Return the repeated blocks in order: units of activation checkpointing, sharding and unfreezing."""
        return ()

    def input_stage(self) -> Sequence[nn.Module]:
        """Return what lies below the blocks: embeddings."""
        return ()

    def frozen_stage(self) -> nn.Module | None:
        """Return the part that never learns and comes first, or None.

        It maps ``inputs`` of `features` to ``(batch, ...)`` as a pure function of each example, so it may be computed
        once an example and handed back by ``encoded=``.
        """
        return None

    def penalty(self) -> Tensor | None:
        """Return a scalar of the last training forward pass that is added to the mean loss, or None.

        Such as the load balancing of experts. It is not part of an evaluation's loss.
        """
        return None

    def notes(self) -> dict[str, str]:
        """Return facts a reader of the results must know, such as ``{"weights": "random"}``; they reach the summary."""
        return {}


class AdversarialPair(Architecture):
    """An architecture of two networks that play against each other.

    Attributes:
        latent_dim: Length of the noise vectors the generator takes.
        generator: ``(batch, latent_dim)`` standard normal noise to images ``(batch, channels, height, width)`` in
            ``[-1, 1]``.
        discriminator: Images in ``[-1, 1]`` to logits ``(batch,)``; the objective applies the sigmoid.
    """

    protocols: ClassVar[frozenset[str]] = frozenset({"adversarial_pair"})
    latent_dim: int
    generator: nn.Module
    discriminator: nn.Module
