"""What every architecture does."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchloom.component import Component
from torchloom.contracts.architecture import AdversarialPair, Architecture
from torchloom.contracts.spec import TokenSpec
from torchloom.errors import UnsupportedError
from torchloom.testing.support import build_architecture, each, inputs_of, load, prefixes

PROTOCOLS = ("features", "sequence")


def forward_of(architecture: Architecture) -> Callable[[Tensor], Tensor]:
    """Return its computation as one function: of examples, or for a pair the judgement of what the generator makes."""
    if isinstance(architecture, AdversarialPair):
        pair = architecture
        return lambda noise: pair.discriminator(pair.generator(noise))
    if "seq2seq" in architecture.protocols:
        return lambda tokens: architecture.seq2seq(tokens, tokens)
    protocol = next(name for name in ("sequence", "features") if name in architecture.protocols)
    method: Callable[[Tensor], Tensor] = getattr(architecture, protocol)
    return method


def examples_for(architecture: Architecture, size: int = 4, seed: int = 0) -> Tensor:
    """Return what `forward_of` takes."""
    if isinstance(architecture, AdversarialPair):
        return torch.randn(size, architecture.latent_dim, generator=torch.Generator().manual_seed(seed))
    return inputs_of(architecture.spec, size, seed)


def followed(architecture: Architecture) -> list[str]:
    return [name for name in PROTOCOLS if name in architecture.protocols]


@each("architecture")
class TestArchitecture:
    """Protocols, gradients, state and causality."""

    def test_declares_a_protocol_that_it_follows(self, component: Component) -> None:
        cls = load(component)
        assert cls.protocols, "an architecture without a protocol can be trained by nothing"
        for name in set(cls.protocols) & set(PROTOCOLS):
            assert getattr(cls, name) is not getattr(Architecture, name)
        assert ("seq2seq" in cls.protocols) == (cls.decode is not Architecture.decode)
        assert ("adversarial_pair" in cls.protocols) == issubclass(cls, AdversarialPair)

    def test_takes_attention_where_it_opens_the_group(self, component: Component) -> None:
        assert load(component).takes_attention == ("attention" in component.slots)

    def test_other_protocols_are_refused(self, component: Component) -> None:
        architecture = build_architecture(component)
        for name in set(PROTOCOLS) - architecture.protocols:
            with pytest.raises(UnsupportedError, match=name):
                getattr(architecture, name)(examples_for(architecture))

    def test_gives_vectors_of_its_width(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        for name in followed(architecture):
            inputs = inputs_of(architecture.spec, 4)
            outputs = getattr(architecture, name)(inputs)
            leading = (4,) if name == "features" else tuple(inputs.shape)
            assert outputs.shape == (*leading, architecture.width)
            assert outputs.isfinite().all()

    def test_second_sequence_is_written_from_the_first(self, component: Component) -> None:
        """It depends on the whole first sequence but its padding, and on no later position of its own."""
        architecture = build_architecture(component).eval()
        if "seq2seq" not in architecture.protocols:
            pytest.skip("writes no second sequence")
        source, target = inputs_of(architecture.spec, 3, seed=1), inputs_of(architecture.spec, 3)
        lengths = torch.tensor([2, 5, source.shape[1]])
        padding = torch.arange(source.shape[1]) >= lengths[:, None]
        with torch.no_grad():
            before = architecture.seq2seq(source, target, source_lengths=lengths)
            assert before.shape == (*target.shape, architecture.width)
            other = torch.where(padding, (source + 1) % 7, source)
            torch.testing.assert_close(before, architecture.seq2seq(other, target, source_lengths=lengths))
            other = torch.where(padding, source, (source + 1) % 7)
            assert not torch.allclose(before, architecture.seq2seq(other, target, source_lengths=lengths))
            cut = target.shape[1] // 2
            changed = torch.cat((target[:, :cut], (target[:, cut:] + 1) % 7), 1)
            after = architecture.seq2seq(source, changed, source_lengths=lengths)
            torch.testing.assert_close(before[:, :cut], after[:, :cut])

    def test_second_sequence_is_the_same_step_by_step(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        if "seq2seq" not in architecture.protocols:
            pytest.skip("writes no second sequence")
        source, target = inputs_of(architecture.spec, 3, seed=1), inputs_of(architecture.spec, 3)
        with torch.no_grad():
            memory = architecture.encode(source)
            state = architecture.new_state(3, target.shape[1])
            pieces = [architecture.decode(piece, memory, state=state) for piece in target.split((3, 1, 1, 7), dim=1)]
            torch.testing.assert_close(torch.cat(pieces, 1), architecture.seq2seq(source, target), rtol=1e-4, atol=1e-5)

    def test_first_sequence_is_shared_by_several_second_ones(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        if "seq2seq" not in architecture.protocols:
            pytest.skip("writes no second sequence")
        source, target = inputs_of(architecture.spec, 2, seed=1), inputs_of(architecture.spec, 4)
        lengths, rows = torch.tensor([3, source.shape[1]]), torch.tensor([1, 0, 0, 1])
        with torch.no_grad():
            shared = architecture.decode(target, architecture.encode(source, lengths)[rows])
            alone = architecture.seq2seq(source[rows], target, source_lengths=lengths[rows])
        torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)

    def test_pair_makes_images_and_judges_them(self, component: Component) -> None:
        pair = build_architecture(component).eval()
        if not isinstance(pair, AdversarialPair):
            pytest.skip("not an adversarial pair")
        images = pair.generator(examples_for(pair))
        assert images.shape == (4, pair.spec.channels, pair.spec.height, pair.spec.width)  # type: ignore[attr-defined]
        assert images.min() >= -1
        assert images.max() <= 1
        assert pair.discriminator(images).shape == (4,)

    def test_every_parameter_that_learns_gets_a_gradient(self, component: Component) -> None:
        architecture = build_architecture(component)
        learning = {name: one for name, one in architecture.named_parameters() if one.requires_grad}
        assert learning
        outputs = forward_of(architecture)(examples_for(architecture))
        # Random weights on the outputs: their plain sum can have no gradient at all, behind a normalisation.
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
        (outputs * weights).sum().backward()
        assert [name for name, one in learning.items() if one.grad is None or not one.grad.isfinite().all()] == []
        assert any(one.grad is not None and one.grad.any() for one in learning.values())

    def test_frozen_parameters_get_none(self, component: Component) -> None:
        architecture = build_architecture(component).train()
        forward_of(architecture)(examples_for(architecture)).sum().backward()
        assert [n for n, one in architecture.named_parameters() if not one.requires_grad and one.grad is not None] == []

    def test_evaluation_repeats_itself(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        inputs = examples_for(architecture)
        with torch.no_grad():
            assert torch.equal(forward_of(architecture)(inputs), forward_of(architecture)(inputs))

    def test_same_seed_builds_the_same_network(self, component: Component) -> None:
        first, second = build_architecture(component).state_dict(), build_architecture(component).state_dict()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []

    def test_state_dict_carries_everything(self, component: Component) -> None:
        source = build_architecture(component).eval()
        target = build_architecture(component).eval()
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True))
        inputs = examples_for(source)
        with torch.no_grad():
            assert torch.equal(forward_of(source)(inputs), forward_of(target)(inputs))

    def test_examples_of_a_batch_do_not_see_each_other(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        inputs = examples_for(architecture)
        with torch.no_grad():
            together = forward_of(architecture)(inputs)
            alone = torch.cat([forward_of(architecture)(inputs[row : row + 1]) for row in range(len(inputs))])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_padding_is_not_looked_at(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        if "features" not in architecture.protocols or not isinstance(architecture.spec, TokenSpec):
            pytest.skip("makes no features of tokens")
        tokens = inputs_of(architecture.spec, 4)
        lengths = torch.tensor([1, 3, 7, tokens.shape[1]])
        padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        other = torch.where(padding, (tokens + 1) % architecture.spec.vocab_size, tokens)
        with torch.no_grad():
            torch.testing.assert_close(
                architecture.features(tokens, lengths=lengths), architecture.features(other, lengths=lengths)
            )

    def test_the_future_does_not_reach_the_past(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        if not architecture.causal or "sequence" not in architecture.protocols:
            pytest.skip("does not claim to be causal")
        assert isinstance(architecture.spec, TokenSpec)
        tokens = inputs_of(architecture.spec, 3)
        with torch.no_grad():
            before = architecture.sequence(tokens)
            for cut in prefixes(tokens.shape[1]):
                changed = tokens.clone()
                changed[:, cut:] = (changed[:, cut:] + 1) % architecture.spec.vocab_size
                after = architecture.sequence(changed)
                torch.testing.assert_close(after[:, :cut], before[:, :cut])
                assert not torch.allclose(after[:, cut:], before[:, cut:]), "the tokens themselves are not looked at"

    def test_state_gives_what_the_whole_sequence_gives(self, component: Component) -> None:
        architecture = build_architecture(component).eval()
        if "sequence" not in architecture.protocols:
            pytest.skip("does not follow the protocol 'sequence'")
        tokens = inputs_of(architecture.spec, 3)
        length = tokens.shape[1]
        with torch.no_grad():
            try:
                state = architecture.new_state(len(tokens), length)
            except UnsupportedError as error:
                pytest.skip(str(error))
            whole = architecture.sequence(tokens)
            first = length // 2  # a prompt at once, then token by token
            parts = [architecture.sequence(tokens[:, :first], state=state)]
            parts += [architecture.sequence(tokens[:, [place]], state=state) for place in range(first, length)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)

    def test_frozen_stage_may_be_computed_beforehand(self, component: Component) -> None:
        architecture = build_architecture(component)
        stage = architecture.frozen_stage()
        if stage is None:
            pytest.skip("no stage is frozen")
        architecture.train()
        assert [name for name, one in stage.named_parameters() if one.requires_grad] == []
        inputs = inputs_of(architecture.spec, 3)
        with torch.no_grad():
            encoded = stage(inputs)
            torch.testing.assert_close(
                encoded, torch.cat([stage(inputs[row : row + 1]) for row in range(3)]), rtol=1e-4, atol=1e-5
            )
            architecture.eval()
            unseen = torch.zeros_like(inputs)
            torch.testing.assert_close(architecture.features(unseen, encoded=encoded), architecture.features(inputs))

    def test_shared_embedding_fits_the_vocabulary(self, component: Component) -> None:
        architecture = build_architecture(component)
        embedding = architecture.input_embedding()
        if embedding is None:
            pytest.skip("nothing is tied")
        assert isinstance(architecture.spec, TokenSpec)
        assert embedding.weight.shape == (architecture.spec.vocab_size, architecture.width)

    def test_blocks_are_its_own_and_apart(self, component: Component) -> None:
        architecture = build_architecture(component)
        own = set(architecture.modules())
        seen: set[nn.Parameter] = set()
        for block in architecture.blocks():
            assert block in own
            assert seen.isdisjoint(block.parameters())
            seen.update(block.parameters())

    def test_notes_are_plain_text(self, component: Component) -> None:
        notes = build_architecture(component).notes()
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in notes.items())
