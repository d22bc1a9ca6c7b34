"""The convolutional network over texts: its sizes, what its largest answers are, and padding that changes nothing."""

import pytest
import torch
from torch.nn import functional as F

from torchloom.contracts.spec import LabelledTextSpec, SeriesSpec
from torchloom.errors import ConfigError
from torchloom_vision.configs import TextCNNConfig
from torchloom_vision.text_cnn import TextCNN

TEXT = LabelledTextSpec(vocab_size=50, context_length=20, num_classes=2)


def build(spec=TEXT, **fields):
    torch.manual_seed(0)
    return TextCNN(TextCNNConfig(**fields), spec).eval()


def test_default_has_kims_kernels():
    network = build(embedding_dim=300)
    assert [tuple(one.weight.shape) for one in network.convolutions] == [(100, 300, size) for size in (3, 4, 5)]
    assert network.width == 300
    assert network.features(torch.zeros(2, 7, dtype=torch.int64)).shape == (2, 300)


def test_each_channel_gives_its_largest_answer_over_all_places_of_a_kernel():
    network = build(kernel_sizes=[2, 5], channels=7, embedding_dim=6)
    ids = torch.randint(50, (9,), generator=torch.Generator().manual_seed(1))
    vectors = network.embedding(ids)
    expected = []
    for convolution, size in zip(network.convolutions, (2, 5), strict=True):
        before = (size - 1) // 2
        wide = F.pad(vectors, (0, 0, before, size - 1 - before))
        answers = [
            F.relu((convolution.weight * wide[place : place + size].T).sum((1, 2)) + convolution.bias)
            for place in range(9)
        ]
        expected.append(torch.stack(answers).amax(0))
    torch.testing.assert_close(network.features(ids[None])[0], torch.cat(expected))


@pytest.mark.parametrize("length", [1, 2, 6])
def test_padding_and_its_tokens_change_nothing(length):
    network = build()
    with torch.no_grad():  # so that answers beyond the end would be the largest
        for convolution in network.convolutions:
            convolution.bias.fill_(0.5)
    ids = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([length, 12, 5])
    padded = network.features(ids, lengths=lengths)
    torch.testing.assert_close(padded[:1], network.features(ids[:1, :length]))
    torch.testing.assert_close(padded[1:2], network.features(ids[1:2]))
    other = ids.masked_fill(torch.arange(12) >= lengths[:, None], 7)
    assert torch.equal(network.features(other, lengths=lengths), padded)


def test_series_go_through_a_matrix():
    network = build(SeriesSpec(channels=3, context_length=8, horizon=2))
    assert network.features(torch.randn(4, 8, 3)).shape == (4, network.width)


@pytest.mark.parametrize("sizes", [[], [3, 0]])
def test_kernels_of_no_width_are_refused(sizes):
    with pytest.raises(ConfigError) as caught:
        build(kernel_sizes=sizes)
    assert str(caught.value) == (
        f"architecture.kernel_sizes: {sizes} are not widths of kernels\n    name some, such as [3,4,5]"
    )
