"""Parameters and operations by formula equal those of the network itself, for every preset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode
from transformer_made import FORMS, SDPA

from torchloom import registry, schema
from torchloom.composing import compose
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.spec import Seq2SeqSpec, TokenSpec
from torchloom_attention.configs import MathAttentionConfig
from torchloom_attention.math import MathAttention
from torchloom_transformer.sizes import flops_per_token, parameter_count, rounded

CONF = Path(__file__).parents[3] / "conf" / "architecture"
COMPONENTS = [one for one in registry.current().components("architecture") if one.name in FORMS]


def preset(name: str) -> tuple[str, Any]:
    """Return the form and the config of a preset, its chain of presets merged by hand."""
    nodes = []
    while name not in FORMS:
        node = OmegaConf.load(CONF / f"{name}.yaml")
        name = node.pop("defaults")[0]
        nodes.insert(0, node)
    (component,) = (one for one in COMPONENTS if one.name == name)
    return name, schema.to_config(component, OmegaConf.merge(*nodes))


def presets() -> list[str]:
    bases = {path.stem: OmegaConf.load(path).defaults[0] for path in CONF.glob("*.yaml")}
    found = []
    for name in sorted(bases):
        base = name
        while base in bases:
            base = bases[base]
        if base in FORMS:
            found.append(name)
    return found


def build(form: str, config: Any, vocab_size: int, context_length: int, attention: Any = SDPA) -> Architecture:
    spec = Seq2SeqSpec(vocab_size, context_length, context_length)
    running = TokenSpec(vocab_size, context_length)
    return FORMS[form][1](config, spec if form == "encoder_decoder" else running, attention)


def size(network: Architecture) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", presets())
def test_every_presets_parameters_are_counted(name: str) -> None:
    form, config = preset(name)
    with torch.device("meta"):
        network = build(form, config, 101, 33)
    assert parameter_count(config, 101, 33) == size(network)


@pytest.mark.parametrize(
    ("name", "vocab_size", "context_length", "published"),
    [
        ("decoder_7b", 32_000, 4096, 6_738_415_616 - 32_000 * 4096),  # Llama 2 7B but its output matrix
        ("decoder_1b", 32_000, 2048, 1_100_048_384 - 32_000 * 2048),  # TinyLlama 1.1B, likewise
        ("decoder_3b", 128_256, 8192, 3_212_749_824),  # Llama 3.2 3B
        ("decoder_tiny", 32_000, 256, 15_191_712),  # stories15M
        ("bert_base", 30_522, 511, 109_482_240 - 768 * 769),  # bert-base-uncased but its pooler
        ("bert_large", 30_522, 511, 335_141_888 - 1024 * 1025),  # bert-large-uncased, likewise
        ("t5_small", 32_128, 512, 60_506_624),
        ("t5_base", 32_128, 512, 222_903_552),
    ],
)
def test_published_sizes_are_the_published_ones(
    name: str, vocab_size: int, context_length: int, published: int
) -> None:
    assert parameter_count(preset(name)[1], vocab_size, context_length) == published


@pytest.mark.parametrize("word", ["1b", "3b", "7b"])
@pytest.mark.parametrize("form", FORMS)
def test_a_size_is_what_its_name_says(form: str, word: str) -> None:
    """With a vocabulary of 32,000 and within a third, as the sizes of published models are."""
    count = parameter_count(preset(f"{form}_{word}")[1], 32_000, 1024)
    assert 2 / 3 < count / (int(word[0]) * 10**9) < 4 / 3


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "heads": [{}, {"num_kv_heads": 2}, {"head_dim": 6}],
    "norm": [{}, {"norm": "layernorm"}, {"norm": "layernorm", "bias": True, "embedding_norm": True}],
    "positions": [{}, {"positions": "learned", "norm_placement": "after"}, {"positions": "relative"}],
    "layers": [{}, {"activation": "gelu"}, {"experts": 3}, {"experts": 3, "ffn_dim": 20, "bias": True}],
    "depth": [{}, {"recurrence": "fixed"}, {"recurrence": "learned", "recurrent_steps": 3}],
}


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(sorted(FORMS)), chosen=st.tuples(*map(st.sampled_from, OPTIONS.values())))
def test_options_in_any_combination_are_counted(form: str, chosen: tuple[dict[str, Any], ...]) -> None:
    options = {"d_model": 16, "num_layers": 1, **{key: value for one in chosen for key, value in one.items()}}
    config = FORMS[form][0](**options)
    with torch.device("meta"):
        network = build(form, config, 7, 9)
    assert parameter_count(config, 7, 9) == size(network)


@pytest.mark.parametrize("options", [one for ones in OPTIONS.values() for one in ones if one], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_operations_are_those_that_torch_counts(form: str, options: dict[str, Any]) -> None:
    config = FORMS[form][0](**{"d_model": 16, "num_layers": 2, "experts_per_token": 2, **options})
    network = build(form, config, 7, 10, MathAttention(MathAttentionConfig()))
    ids = torch.zeros(2, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vectors = network.seq2seq(ids, ids) if form == "encoder_decoder" else network.sequence(ids)
        vectors @ network.input_embedding().weight.T
    assert flops_per_token(config, 10, 7) * 20 == counter.get_total_flops()


@pytest.mark.parametrize(
    ("number", "text"),
    [(999, "999"), (1_000, "1.00 thousand"), (45_600_000, "45.6 million"), (6_738_415_616, "6.74 billion"),
     (124_439_808, "124 million"), (2 * 10**12, "2.00 trillion")],
)  # fmt: skip
def test_numbers_are_told_with_three_digits(number: int, text: str) -> None:
    assert rounded(number) == text


def test_show_tells_a_presets_size_without_torch(tmp_path: Path) -> None:
    script = """
import sys
from torchloom.cli import main
assert main(["show", "architecture/decoder_7b"]) == 0
assert main(["show", "architecture/bert_base"]) == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    llama, bert = " ".join(done.stdout.split()).split("architecture/bert_base")
    assert "parameters 6.61 billion (6,607,343,616) with a vocabulary of 32,000 and 1,024 positions" in llama
    assert "131 million more in the output matrix" in llama
    assert "FLOPs 13.8 billion a token, with the output matrix; about 41.3 billion in training" in llama
    assert "starts from bert" in bert
    assert "parameters 110 million (110,420,736)" in bert


def test_a_run_gets_what_show_counts() -> None:
    node = OmegaConf.to_container(compose(["architecture=bert_large"]).architecture)
    assert isinstance(node, dict)
    (component,) = (one for one in COMPONENTS if one.name == "encoder")
    assert (
        schema.to_config(component, {key: value for key, value in node.items() if key != "name"})
        == preset("bert_large")[1]
    )
