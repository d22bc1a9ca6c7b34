"""Pieces of a corpus, looked up by what an example says and read by blocks of their own.

Letters: R rows that look something up, T tokens, N pieces of the corpus, K pieces a row, L tokens a piece, S tokens of a
row's pieces together, C d_model, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem, UnsupportedError
from torchloom_transformer.configs import RetrievalConfig, TransformerConfig
from torchloom_transformer.layers import Found
from torchloom_transformer.stack import Embeddings, Stack

_SPECIAL = ("pad", "unk", "bos", "eos", "mask", "cls", "sep")


class Index(NamedTuple):
    """A corpus, ready to be searched.

    Attributes:
        tokens: Pieces, int64 ``(pieces, tokens)``, filled up with 0.
        lengths: Tokens of each, int64 ``(pieces,)``.
        keys: Weight of each token in a piece's vector of length 1, float32 ``(pieces, tokens)``.
        weights: Weight of each token of the vocabulary, float32 ``(vocab,)``.
    """

    tokens: Tensor
    lengths: Tensor
    keys: Tensor
    weights: Tensor


class Retrieval(nn.Module):
    """Looks up the pieces of a corpus that share the rarest tokens with a text, and reads them.

    Pieces and texts are alike by the cosine of their TF-IDF vectors: how often each token stands there, times
    ``log(pieces / pieces with it)``. Special tokens and those of no piece count nothing. All pieces are compared, which
    costs an addition for each of their tokens and each text.

    The corpus is no part of a checkpoint. What is learnt is how to read, so another corpus may take its place.

    Source: Borgeaud et al., 2022, RETRO, sections 2.2 to 2.4; Salton & Buckley, 1988
    (TF-IDF).
    """

    def __init__(self, config: TransformerConfig, spec: Spec, attention: Attention, positions: int) -> None:
        """Build the blocks that read pieces; the corpus is read by `take_tokenizer`.

        Args:
            config: Of the network that looks at what is found.
            spec: Of its data.
            attention: Its kernel.
            positions: Longest sequence that it takes.

        Raises:
            ConfigError: The data is no text, or a piece longer than the network's sequences.
        """
        super().__init__()
        self.config: RetrievalConfig = config.retrieval
        if not hasattr(spec, "vocab_size"):
            message = f"text is looked up by text, but the dataset gives {spec.name}"
            raise ConfigError([Problem("architecture.retrieval.path", message, "leave it out")])
        if self.config.piece_length > positions:
            message = f"pieces of {self.config.piece_length} tokens do not fit into the network's {positions} positions"
            mend = f"set it to {positions} or less, or raise dataset.context_length"
            raise ConfigError([Problem("architecture.retrieval.piece_length", message, mend)])
        plain = dataclasses.replace(config, recurrence="none", experts=0)
        self.stack = Stack(plain, attention, self.config.layers, causal=False)
        self.vocab_size: int = spec.vocab_size
        # No buffers: these keep their precision whatever the network's is, and processes need not send them around.
        self._index: Index | None = None

    def take_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Read the corpus, cut it into pieces and weigh their tokens.

        Raises:
            DataError: It is missing, empty or no text.
        """
        assert self.config.path is not None
        pieces = list(_pieces(Path(self.config.path).expanduser(), tokenizer, self.config))
        counted = [np.unique(piece, return_counts=True) for piece in pieces]
        having = np.zeros(self.vocab_size)
        for token, _ in counted:
            having[token] += 1
        weight = np.where(having > 0, np.log(len(pieces) / np.maximum(having, 1)), 0.0)
        weight[[one for name in _SPECIAL if (one := tokenizer.special_id(name)) is not None]] = 0.0
        tokens = np.zeros((len(pieces), max(map(len, pieces))), np.int64)
        keys = np.zeros(tokens.shape, np.float32)
        for number, (piece, (token, often)) in enumerate(zip(pieces, counted, strict=True)):
            length = np.linalg.norm(often * weight[token])
            tokens[number, : len(piece)] = piece
            keys[number, : len(piece)] = weight[piece] / (length or 1.0)
        lengths = np.array([len(piece) for piece in pieces])
        self._index = Index(*map(torch.from_numpy, (tokens, lengths, keys, weight.astype(np.float32))))

    def forward(self, embeddings: Embeddings, tokens_RT: Tensor, lengths_R: Tensor | None = None) -> Found:
        """Look up and read pieces for each row.

        Args:
            embeddings: The network's.
            tokens_RT: What to look up, int64 ``(rows, seq)``, padded at the end.
            lengths_R: Real tokens of each row, ``(rows,)``; all of them unless given. To a row of none nothing is found.
        """
        place_RK = self.look_up(tokens_RT, lengths_R)
        index = self.index(tokens_RT.device)
        tokens_RKL, lengths_RK = index.tokens[place_RK], index.lengths[place_RK]
        read = self.stack(embeddings(tokens_RKL.flatten(0, 1)), AttentionMask(key_lengths=lengths_RK.flatten()))
        read_RSC = read.unflatten(0, place_RK.shape).flatten(1, 2)
        if lengths_R is not None:
            lengths_RK = lengths_RK * (lengths_R > 0).to(lengths_RK.device)[:, None]
        # Real tokens come to the front, so that a length alone says which they are.
        place_L = torch.arange(tokens_RKL.shape[2], device=tokens_RKL.device)
        padding_RS = (place_L >= index.lengths[place_RK][..., None]).flatten(1)
        order_RS1 = padding_RS.byte().argsort(dim=1, stable=True)[..., None]
        vectors = read_RSC.gather(1, order_RS1.expand_as(read_RSC))
        return Found(vectors, AttentionMask(key_lengths=lengths_RK.sum(1)))

    def windows(self, embeddings: Embeddings, tokens_BT: Tensor, start: int) -> Found:
        """Look up for a causal network, each window of ``piece_length`` positions by the tokens of the window before it.

        Nothing is found for the first window.

        Args:
            embeddings: The network's.
            tokens_BT: All tokens so far, int64 ``(batch, seq)``.
            start: The first position that is to look.

        Source: Borgeaud et al., 2022, section 2.4.
        """
        window = self.config.piece_length
        first, last = start // window, (tokens_BT.shape[1] - 1) // window
        # Moved by a window, each holds what stood before it.
        asked_BT = F.pad(tokens_BT, (window, 0))[:, first * window : (last + 1) * window]
        asked_RT = asked_BT.unflatten(1, (-1, window)).flatten(0, 1)
        number_R = torch.arange(first, last + 1, device=tokens_BT.device).repeat(len(tokens_BT))
        found: Found = self(embeddings, asked_RT, (number_R > 0) * window)
        return dataclasses.replace(found, window=window, start=start % window)

    @torch.no_grad()
    def look_up(self, tokens_RT: Tensor, lengths_R: Tensor | None = None) -> Tensor:
        """Return the numbers of the pieces most alike, best first, int64 ``(rows, pieces)``.

        Args:
            tokens_RT: As in `forward`.
            lengths_R: As in `forward`.
        """
        index = self.index(tokens_RT.device)
        asked_RT = index.weights[tokens_RT]
        if lengths_R is not None:
            place_T = torch.arange(tokens_RT.shape[1], device=tokens_RT.device)
            asked_RT = asked_RT * (place_T < lengths_R.to(tokens_RT.device)[:, None])
        asked_RV = asked_RT.new_zeros(len(tokens_RT), self.vocab_size).scatter_add(1, tokens_RT, asked_RT)
        # Not divided by its length, which is the same for all pieces.
        alike_NR = F.embedding_bag(index.tokens, asked_RV.T.contiguous(), mode="sum", per_sample_weights=index.keys)
        return alike_NR.T.topk(min(self.config.pieces, len(alike_NR)), dim=1).indices

    def index(self, device: torch.device) -> Index:
        """Return what is searched, moved to a device and kept there.

        Raises:
            UnsupportedError: No corpus has been read.
        """
        if self._index is None:
            raise UnsupportedError(
                "no corpus has been read to look up in: call take_tokenizer with the data's tokenizer"
            )
        if self._index.tokens.device != device:
            self._index = Index(*(one.to(device) for one in self._index))
        return self._index


def refuse_documents(mask: AttentionMask) -> None:
    """Refuse rows of several documents: what one says would look up what another sees.

    Raises:
        UnsupportedError: The mask tells documents apart.
    """
    if mask.documents is not None:
        raise UnsupportedError(
            "a row is looked up as a whole, but this one holds documents that are told apart: leave "
            "architecture.retrieval.path out, or set dataset.packing=stream"
        )


def _pieces(path: Path, tokenizer: Tokenizer, config: RetrievalConfig) -> Iterator[NDArray[np.integer[Any]]]:
    """Yield the pieces of all texts, file by file.

    Raises:
        DataError: There is no text.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    empty = True
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = (
                "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            )
            raise DataError(f"{file}: {reason}; set architecture.retrieval.path to text, or a folder of it") from error
        lines = [text] if config.cut == "running" else text.splitlines()
        for ids in tokenizer.encode_batch([line for line in lines if line.strip()]):
            for start in range(0, len(ids), config.piece_length):
                yield ids[start : start + config.piece_length]
                empty = False
    if empty:
        what = "holds no .txt file with text" if path.is_dir() else "holds no text"
        raise DataError(f"{path}: {what} to look up; set architecture.retrieval.path to some")
