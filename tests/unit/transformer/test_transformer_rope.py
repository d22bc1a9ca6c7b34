"""Rotary positions against complex numbers, and the law they are there for."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom_transformer.positions import Rotation

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.integers(1, 8),
    start=st.integers(0, 100),
    length=st.integers(1, 9),
    theta=st.sampled_from([100.0, 10000.0]),
)
def test_rotation_is_a_product_of_complex_numbers(pairs: int, start: int, length: int, theta: float):
    x = torch.randn(2, length, 3, 2 * pairs, generator=torch.Generator().manual_seed(length))
    rotated = Rotation.of(start, length, 3, 2 * pairs, theta, CPU).apply(x)

    position = torch.arange(start, start + length, dtype=torch.float64)
    frequency = torch.tensor([theta ** (-2 * i / (2 * pairs)) for i in range(pairs)], dtype=torch.float64)
    turn = torch.polar(torch.ones(length, pairs, dtype=torch.float64), torch.outer(position, frequency))
    product = torch.complex(x[..., :pairs].double(), x[..., pairs:].double()) * turn[:, None]
    torch.testing.assert_close(rotated.double(), torch.cat((product.real, product.imag), -1), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(shift=st.integers(0, 300), q_place=st.integers(0, 40), k_place=st.integers(0, 40))
def test_scores_depend_on_the_distance_alone(shift: int, q_place: int, k_place: int):
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(q_at: int, k_at: int) -> torch.Tensor:
        q_turned = Rotation.of(q_at, 1, 1, 16, 10000.0, CPU).apply(q)
        k_turned = Rotation.of(k_at, 1, 1, 16, 10000.0, CPU).apply(k)
        return (q_turned * k_turned).sum()

    torch.testing.assert_close(score(q_place + shift, k_place + shift), score(q_place, k_place), rtol=1e-3, atol=1e-3)


def test_rotation_keeps_length_and_leaves_the_first_position():
    x = torch.randn(1, 50, 2, 32)
    rotated = Rotation.of(0, 50, 2, 32, 10000.0, CPU).apply(x)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(rotated[:, 0], x[:, 0])
    assert not torch.allclose(rotated[:, 1], x[:, 1])


def test_low_precision_vectors_are_turned_by_exact_angles():
    x = torch.randn(1, 1, 1, 32, dtype=torch.bfloat16)
    rotated = Rotation.of(5000, 1, 1, 32, 10000.0, CPU).apply(x)
    exact = Rotation.of(5000, 1, 1, 32, 10000.0, CPU).apply(x.float())
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, exact.bfloat16())


def test_a_compiled_network_computes_its_angles_once_and_for_any_length():
    graphs = []

    def keep(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    def turned_in_each_of_two_layers(x: torch.Tensor) -> torch.Tensor:
        rotation = Rotation.of(0, x.shape[1], 3, 8, 10000.0, CPU)
        return rotation.apply(rotation.apply(x))

    compiled = torch.compile(turned_in_each_of_two_layers, backend=keep, dynamic=True, fullgraph=True)
    for length in (5, 9):
        x = torch.randn(2, length, 3, 8)
        assert torch.equal(compiled(x), turned_in_each_of_two_layers(x))
    assert len(graphs) == 1
    assert sum("angles" in name for name in graphs[0]) == 1
    assert not any("cos" in name for name in graphs[0])  # nor again for every element that is turned
