"""A memory of what came next in a text, asked by likeness.

Letters: N positions, C width, K neighbours.
"""

from __future__ import annotations

import math

import faiss
import torch
from torch import Tensor


class StateMemory:
    """Vectors of positions, each with the token that came next, searched exactly.

    Source: Khandelwal et al., 2020, Generalization through Memorization: Nearest Neighbor Language Models, section 2.
    """

    def __init__(self, width: int) -> None:
        """Begin with nothing.

        Args:
            width: Length of the vectors.
        """
        self.index = faiss.IndexFlatL2(width)
        self.tokens = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, vectors_NC: Tensor, next_N: Tensor) -> None:
        """Take in positions.

        Args:
            vectors_NC: Their vectors, ``(positions, width)``, on the CPU.
            next_N: The token behind each, int64 ``(positions,)``.
        """
        self.index.add(vectors_NC.float().contiguous().numpy())
        self.tokens = torch.cat([self.tokens, next_N])

    def search(self, vectors_NC: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        """Find the positions most alike.

        Args:
            vectors_NC: ``(positions, width)``, on the CPU.
            neighbours: How many; fewer are found in a smaller memory.

        Returns:
            Squared distances, float32, nearest first, and the tokens that came next there; ``(positions, neighbours)``.
        """
        count = min(neighbours, len(self))
        distance, place = self.index.search(vectors_NC.float().contiguous().numpy(), count)
        return torch.from_numpy(distance), self.tokens[torch.from_numpy(place)]


def remembered(distance_NK: Tensor, token_NK: Tensor, wanted_N: Tensor, temperature: float) -> Tensor:
    """Return the probability that the neighbours give to the tokens wanted.

    Args:
        distance_NK: Squared distances.
        token_NK: What came next there.
        wanted_N: Tokens asked for, int64 ``(positions,)``.
        temperature: A neighbour has a say of ``exp(-distance / temperature)``, above 0.

    Returns:
        ``(positions,)``, in ``[0, 1]``.

    Source: Khandelwal et al., 2020, equation 2.
    """
    say_NK = (-distance_NK / temperature).softmax(-1)
    return (say_NK * (token_NK == wanted_N[:, None])).sum(-1)


def mixed_loss(log_model_N: Tensor, remembered_N: Tensor, weight: float) -> float:
    """Return the mean cross-entropy of ``(1 - weight) * model + weight * memory``, in nats.

    Args:
        log_model_N: The model's log-probability of each true token.
        remembered_N: The memory's probability of it.
        weight: In ``[0, 1)``.

    Source: Khandelwal et al., 2020, equation 3.
    """
    if not weight:
        return -log_model_N.double().mean().item()
    model_N = log_model_N.double() + math.log1p(-weight)
    memory_N = remembered_N.double().log() + math.log(weight)
    return -torch.logaddexp(model_N, memory_N).mean().item()
