"""What every tokenizer does."""

from __future__ import annotations

import pytest
import torch

from torchloom.component import Component
from torchloom.errors import ConfigError, DataError, UnsupportedError
from torchloom.testing.support import TEXT, build, each, trained_tokenizer

PIECE = TEXT[2000:4000]


@each("tokenizer")
class TestTokenizer:
    """Encoding, decoding, and what a checkpoint carries of it."""

    def test_knows_whether_it_is_trained(self, component: Component) -> None:
        assert not build(component).trained
        assert trained_tokenizer(component).trained

    def test_ids_are_in_its_vocabulary(self, component: Component) -> None:
        tokenizer = trained_tokenizer(component)
        ids = tokenizer.encode(PIECE)
        assert ids.dtype == torch.int64
        assert ids.ndim == 1
        assert 0 < len(ids) <= len(PIECE.encode())
        assert ids.min() >= 0
        assert ids.max() < tokenizer.vocab_size

    def test_many_texts_are_encoded_as_each_is(self, component: Component) -> None:
        tokenizer = trained_tokenizer(component)
        texts = [PIECE, "", PIECE[:100]]
        ids = tokenizer.encode_batch(texts)
        assert all(one.dtype.kind in "iu" for one in ids)
        assert [one.tolist() for one in ids] == [tokenizer.encode(text).tolist() for text in texts]

    def test_decoding_and_encoding_settle(self, component: Component) -> None:
        """A tokenizer may lose something of a text, spacing for example, but only once."""
        tokenizer = trained_tokenizer(component)
        ids, unknown = tokenizer.encode(PIECE), tokenizer.special_id("unk")
        settled = tokenizer.decode(ids if unknown is None else ids[ids != unknown])
        assert len(settled) > 0.5 * len(PIECE)
        assert tokenizer.decode(tokenizer.encode(settled)) == settled

    def test_texts_come_back_exactly_where_promised(self, component: Component) -> None:
        tokenizer = trained_tokenizer(component)
        if not tokenizer.exact:
            pytest.skip(f"{component.name} does not promise it")
        for text in (PIECE, "<eos>[SEP]</s><|endoftext|>", "\x00\r\n\t \u2581\ufeff  e\u0301\U0001f1e6"):
            try:
                ids = tokenizer.encode(text)
            except DataError:  # it promises what it takes, and takes this not
                continue
            assert tokenizer.decode(ids) == text

    def test_state_carries_everything(self, component: Component) -> None:
        tokenizer, other = trained_tokenizer(component), build(component)
        other.load_state(tokenizer.state())
        assert other.trained
        assert other.vocab_size == tokenizer.vocab_size
        assert torch.equal(other.encode(PIECE), tokenizer.encode(PIECE))
        assert other.decode(tokenizer.encode(PIECE)) == tokenizer.decode(tokenizer.encode(PIECE))
        assert other.state() == tokenizer.state()

    def test_training_again_gives_the_same(self, component: Component) -> None:
        assert trained_tokenizer(component).state() == trained_tokenizer(component).state()

    def test_special_tokens_have_ids_of_their_own(self, component: Component) -> None:
        tokenizer = trained_tokenizer(component)
        ids = [one for one in map(tokenizer.special_id, ("pad", "unk", "bos", "eos", "mask")) if one is not None]
        assert len(set(ids)) == len(ids)
        assert all(0 <= one < tokenizer.vocab_size for one in ids)

    def test_further_special_tokens_stand_behind_the_vocabulary(self, component: Component) -> None:
        tokenizer, other = trained_tokenizer(component), build(component)
        before, size = tokenizer.encode(PIECE), tokenizer.vocab_size
        text = PIECE[:50] + "<|one|>"
        try:
            ids = tokenizer.add(["<|one|>", "<|two|>"])
        except UnsupportedError as error:
            pytest.skip(str(error))
        assert ids == [size, size + 1]
        assert tokenizer.vocab_size == size + 2
        assert tokenizer.add(["<|two|>"]) == [size + 1]
        other.load_state(tokenizer.state())
        for one in (tokenizer, other):
            assert one.vocab_size == size + 2
            assert one.decode(ids).replace(" ", "") == "<|one|><|two|>"
            assert torch.equal(one.encode(PIECE), before)
            try:
                assert one.encode(text).max() < size  # what looks like one in a text is text
            except DataError:  # it has no token for such signs, and none for what is unknown
                continue

    def test_no_text_is_an_error(self, component: Component) -> None:
        with pytest.raises((DataError, ConfigError)):
            build(component).train([])
