"""Small Transformers in double precision, made alike for all tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.spec import Seq2SeqSpec, Spec, TokenSpec
from torchloom_attention.configs import SDPAttentionConfig
from torchloom_attention.sdpa import SDPAttention
from torchloom_transformer.configs import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from torchloom_transformer.decoder import Decoder
from torchloom_transformer.encoder import Encoder
from torchloom_transformer.encoder_decoder import EncoderDecoder

VOCAB = 11
SPEC = TokenSpec(vocab_size=VOCAB, context_length=12)
PAIRS = Seq2SeqSpec(vocab_size=VOCAB, source_length=12, target_length=12)
SDPA = SDPAttention(SDPAttentionConfig())
FORMS: dict[str, tuple[type[Any], type[Architecture], Spec]] = {
    "decoder": (DecoderConfig, Decoder, SPEC),
    "encoder": (EncoderConfig, Encoder, SPEC),
    "encoder_decoder": (EncoderDecoderConfig, EncoderDecoder, PAIRS),
}


def make(form: str, **options: Any) -> Any:
    """Return a network whose weights are large enough that everything in it shows in the result."""
    config, target, spec = FORMS[form]
    torch.manual_seed(0)
    options = {"d_model": 16, "num_layers": 2, "num_heads": 4, "init_std": 0.2, **options}
    return target(config(**options), spec, SDPA).double().eval()


def tokens(batch: int = 3, length: int = 12, seed: int = 1) -> Tensor:
    """Return random token ids."""
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> None:
    """Demand equality as far as RoPE's angles, which are float32, allow."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
