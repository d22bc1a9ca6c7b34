"""Biases for distances: the groups of T5, and that they shift with the positions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformer_made import close, make, tokens

from torchloom.contracts.attention import AttentionMask
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.positions import RelativeBias


def group(offset: int, buckets: int, distance: int, *, causal: bool) -> int:
    """Return T5's group of one offset, in whole numbers alone.

    Beyond the distances that have one each, group ``exact + j`` begins where ``far / exact`` reaches the ``j`` th of
    ``n`` equal powers of ``distance / exact``: where ``(far / exact) ** n >= (distance / exact) ** j``.
    """
    first = 0
    if not causal:
        buckets //= 2
        first = buckets if offset > 0 else 0
    far = max(-offset, 0) if causal else abs(offset)
    exact = buckets // 2
    if far < exact:
        return first + far
    n = buckets - exact
    reached = [j for j in range(n) if Fraction(far, exact) ** n >= Fraction(distance, exact) ** j]
    return first + exact + reached[-1]


def buckets_of(offsets: list[int], buckets: int, distance: int, *, causal: bool) -> list[int]:
    config = DecoderConfig(num_heads=2, relative_buckets=buckets, relative_distance=distance)
    return RelativeBias(config, causal=causal).bucket(torch.tensor(offsets)).tolist()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (4, 3), (64, 1000), (9, 50)])
def test_every_offset_has_the_formulas_group(buckets: int, distance: int, causal: bool) -> None:
    offsets = list(range(-2 * distance, 2 * distance + 1))
    wanted = [group(offset, buckets, distance, causal=causal) for offset in offsets]
    assert buckets_of(offsets, buckets, distance, causal=causal) == wanted


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), st.integers(4, 64), st.booleans(), st.data())
def test_groups_are_in_range_and_grow_with_the_distance(
    offsets: list[int], buckets: int, causal: bool, data: Any
) -> None:
    distance = data.draw(st.integers(buckets // 2 + 1, 10 * buckets))
    found = buckets_of(sorted(offsets), buckets, distance, causal=causal)
    assert all(0 <= one < buckets for one in found)
    behind = [one for one, offset in zip(found, sorted(offsets), strict=True) if offset <= 0]
    ahead = [one for one, offset in zip(found, sorted(offsets), strict=True) if offset > 0]
    assert behind == sorted(behind, reverse=True)
    assert ahead == ([0] * len(ahead) if causal else sorted(ahead))
    assert causal or not set(behind) & set(ahead)


def test_the_bias_is_added_to_the_scores_of_its_distance() -> None:
    config = DecoderConfig(num_heads=3, relative_buckets=8, relative_distance=20)
    relative = RelativeBias(config, causal=True)
    bias = relative(start=4, seq_q=3, seq_k=7)
    assert bias.shape == (1, 3, 3, 7)
    for row in range(3):
        for key in range(7):
            number = group(key - (4 + row), 8, 20, causal=True)
            assert torch.equal(bias[0, :, row, key], relative.bias.weight[number])


def test_only_distances_count() -> None:
    decoder, ids = make("decoder", positions="relative"), tokens(1, 6)
    later = torch.cat([tokens(1, 5, seed=3), ids], 1)
    documents = torch.tensor([[0] * 5 + [1] * 6])
    close(decoder.sequence(later, mask=AttentionMask(documents=documents))[:, 5:], decoder.sequence(ids))
    assert not torch.isclose(decoder.sequence(ids)[:, 1:], make("decoder", positions="none").sequence(ids)[:, 1:]).any()
