"""Random numbers of examples."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchloom.contracts.dataset import EpochKey
from torchloom.data import uniform

KEYS = st.builds(EpochKey, st.integers(0, 2**31), st.integers(0, 1000))


@given(KEYS | st.none(), st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(1, 50))
def test_numbers_hang_on_the_example_and_not_on_its_batch(key: EpochKey | None, indices: list[int], count: int) -> None:
    together = uniform(key, torch.tensor(indices), count)
    alone = torch.cat([uniform(key, torch.tensor([index]), count + 3)[:, :count] for index in indices])
    assert torch.equal(together, alone)
    assert ((together >= 0) & (together < 1)).all()


def test_numbers_are_uniform_and_unlike_those_of_neighbours_epochs_seeds_and_streams() -> None:
    indices = torch.arange(500)
    draws = [
        uniform(EpochKey(0, 0), indices, 400),
        uniform(EpochKey(0, 1), indices, 400),
        uniform(EpochKey(1, 0), indices, 400),
        uniform(EpochKey(0, 0), indices, 400, stream=1),
        uniform(None, indices, 400),
    ]
    draws += [draws[0].roll(1, 0), draws[0].roll(1, 1)]
    flat = torch.stack(draws).double().flatten(1)
    assert torch.allclose(flat.mean(1), torch.full((7,), 0.5, dtype=torch.float64), atol=0.003)
    assert torch.allclose(flat.var(1), torch.full((7,), 1 / 12, dtype=torch.float64), atol=0.001)
    correlation = torch.corrcoef(flat) - torch.eye(7, dtype=torch.float64)
    assert correlation.abs().max() < 0.01
