"""Where each tensor of a published network stands in ours, and which of our settings make it.

Every layout is a list of rules, read in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchloom.errors import UnsupportedError

Settings = dict[str, Any]
State = dict[str, Tensor]
BACKBONE = "architecture."


@dataclass(frozen=True)
class Rule:
    """One of our tensors and those of theirs that it is made of.

    Attributes:
        ours: Our key.
        theirs: Their keys, one behind the other along the first dimension.
        sizes: How long each of them is, where there are several.
        transposed: Whether theirs is ``(in, out)``, as GPT-2's layers are.
        scale: What ours is multiplied with.
    """

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False
    scale: float = 1.0

    def read(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return our tensor from theirs."""
        parts = [state[key].T if self.transposed else state[key] for key in self.theirs]
        return torch.cat([part.float() for part in parts]) * self.scale

    def write(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield their tensors from ours."""
        whole = state[self.ours].float() / self.scale
        parts = whole.split(self.sizes) if self.sizes else (whole,)
        for key, part in zip(self.theirs, parts, strict=True):
            # A part of its own: safetensors writes no two tensors of one memory.
            yield key, (part.T if self.transposed else part).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Layout:
    """A published network.

    Attributes:
        model_type: What its config.json says.
        bare: Name of the model of transformers that has no head.
        classes: Names of those that have one, by our objective.
        architecture: Our architecture.
        objective: The objective that its own head is for.
        settings: Makes our architecture's settings, and its longest sequence, of its config.json and its tensors.
        config: Makes its config.json of our settings, vocabulary size and longest sequence.
        rules: Makes the rules of our settings and its config.json; those of the head are under ``head.``.
        prefix: What its keys begin with in some files and not in others.
    """

    model_type: str
    bare: str
    classes: Mapping[str, str]
    architecture: str
    objective: str
    settings: Callable[[Settings, State], tuple[Settings, int]]
    config: Callable[[Settings, int, int], Settings]
    rules: Callable[[Settings, Settings], list[Rule]]
    prefix: str = ""


def _attention(settings: Settings) -> tuple[int, int]:
    """Return the rows of queries, and of keys or values."""
    size = settings.get("head_dim") or settings["d_model"] // settings["num_heads"]
    return settings["num_heads"] * size, (settings.get("num_kv_heads") or settings["num_heads"]) * size


# ------------------------------------------------------------------------------------------------------------- GPT-2


def _gpt2_settings(config: Settings, weights: State) -> tuple[Settings, int]:
    _only(config, activation_function="gelu_new", scale_attn_by_inverse_layer_idx=False, reorder_and_upcast_attn=False)
    made = {
        "d_model": config["n_embd"],
        "num_layers": config["n_layer"],
        "num_heads": config["n_head"],
        "ffn_dim": config.get("n_inner") or 4 * config["n_embd"],
        "norm": "layernorm",
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "activation": "gelu_tanh",
        "bias": True,
        "tie_embeddings": True,
    }
    return made, config["n_positions"]


def _gpt2_config(settings: Settings, vocab_size: int, length: int) -> Settings:
    _wanted(
        settings,
        norm="layernorm",
        positions="learned",
        activation="gelu_tanh",
        bias=True,
        tie_embeddings=True,
        **_whole_heads(settings),
    )
    return {
        "n_embd": settings["d_model"],
        "n_layer": settings["num_layers"],
        "n_head": settings["num_heads"],
        "n_inner": settings["ffn_dim"],
        "n_positions": length,
        "vocab_size": vocab_size,
        "layer_norm_epsilon": settings["norm_eps"],
        "activation_function": "gelu_new",
    }


def _gpt2_rules(settings: Settings, config: Settings) -> list[Rule]:
    rules = [
        Rule(f"{BACKBONE}embeddings.token.weight", ("wte.weight",)),
        Rule(f"{BACKBONE}embeddings.position.weight", ("wpe.weight",)),
        *_pair(f"{BACKBONE}stack.norm", "ln_f"),
    ]
    for index in range(settings["num_layers"]):
        ours, theirs = f"{BACKBONE}stack.layers.{index}", f"h.{index}"
        rules += _pair(f"{ours}.attention_norm", f"{theirs}.ln_1") + _pair(
            f"{ours}.feed_forward_norm", f"{theirs}.ln_2"
        )
        for mine, other in (
            ("attention.qkv", "attn.c_attn"),
            ("attention.out", "attn.c_proj"),
            ("feed_forward.up", "mlp.c_fc"),
            ("feed_forward.down", "mlp.c_proj"),
        ):
            rules.append(Rule(f"{ours}.{mine}.weight", (f"{theirs}.{other}.weight",), transposed=True))
            rules.append(Rule(f"{ours}.{mine}.bias", (f"{theirs}.{other}.bias",)))
    return rules


# ------------------------------------------------------------------------------------------------------------- Llama


def _llama_settings(config: Settings, weights: State) -> tuple[Settings, int]:
    _only(config, hidden_act="silu", attention_bias=False, mlp_bias=False)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UnsupportedError(f"config.json: stretches its positions by {rope}, which no architecture here does")
    made = {
        "d_model": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "head_dim": config.get("head_dim"),
        "ffn_dim": config["intermediate_size"],
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_theta": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "tie_embeddings": config.get("tie_word_embeddings", False),
    }
    return made, config["max_position_embeddings"]


def _llama_config(settings: Settings, vocab_size: int, length: int) -> Settings:
    _wanted(settings, norm="rmsnorm", positions="rope", activation="swiglu", bias=False)
    return {
        "hidden_size": settings["d_model"],
        "num_hidden_layers": settings["num_layers"],
        "num_attention_heads": settings["num_heads"],
        "num_key_value_heads": settings["num_kv_heads"],
        "head_dim": settings["head_dim"],
        "intermediate_size": settings["ffn_dim"],
        "rms_norm_eps": settings["norm_eps"],
        "rope_theta": settings["rope_theta"],
        "max_position_embeddings": length,
        "vocab_size": vocab_size,
        "tie_word_embeddings": settings["tie_embeddings"],
        "hidden_act": "silu",
    }


def _llama_rules(settings: Settings, config: Settings) -> list[Rule]:
    queries, keys = _attention(settings)
    rules = [
        Rule(f"{BACKBONE}embeddings.token.weight", ("model.embed_tokens.weight",)),
        Rule(f"{BACKBONE}stack.norm.weight", ("model.norm.weight",)),
    ]
    if not settings["tie_embeddings"]:
        rules.append(Rule("head.weight", ("lm_head.weight",)))
    for index in range(settings["num_layers"]):
        ours, theirs = f"{BACKBONE}stack.layers.{index}", f"model.layers.{index}"
        qkv = tuple(f"{theirs}.self_attn.{name}_proj.weight" for name in "qkv")
        up = tuple(f"{theirs}.mlp.{name}_proj.weight" for name in ("gate", "up"))
        rules += [
            Rule(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",)),
            Rule(f"{ours}.attention.qkv.weight", qkv, (queries, keys, keys)),
            Rule(f"{ours}.attention.out.weight", (f"{theirs}.self_attn.o_proj.weight",)),
            Rule(f"{ours}.feed_forward_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
            Rule(f"{ours}.feed_forward.up.weight", up, (settings["ffn_dim"],) * 2),
            Rule(f"{ours}.feed_forward.down.weight", (f"{theirs}.mlp.down_proj.weight",)),
        ]
    return rules


# -------------------------------------------------------------------------------------------------------------- BERT


def _bert_settings(config: Settings, weights: State) -> tuple[Settings, int]:
    _only(config, hidden_act="gelu", position_embedding_type="absolute", is_decoder=False, tie_word_embeddings=True)
    made = {
        "d_model": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "ffn_dim": config["intermediate_size"],
        "norm": "layernorm",
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "norm_placement": "after",
        "embedding_norm": True,
        "positions": "learned",
        "activation": "gelu",
        "bias": True,
        "segments": config.get("type_vocab_size", 2),
        "pooling": "first",
        "tie_embeddings": True,
    }
    # An encoder has a position more than its spec's windows: theirs is the longest sequence.
    return made, config["max_position_embeddings"] - 1


def _bert_config(settings: Settings, vocab_size: int, length: int) -> Settings:
    _wanted(
        settings,
        norm="layernorm",
        norm_placement="after",
        embedding_norm=True,
        positions="learned",
        activation="gelu",
        bias=True,
        tie_embeddings=True,
        **_whole_heads(settings),
    )
    if not settings["segments"]:
        raise UnsupportedError("architecture.segments=0 has no place in that layout, which tells segments apart")
    return {
        "hidden_size": settings["d_model"],
        "num_hidden_layers": settings["num_layers"],
        "num_attention_heads": settings["num_heads"],
        "intermediate_size": settings["ffn_dim"],
        "layer_norm_eps": settings["norm_eps"],
        "type_vocab_size": settings["segments"],
        "max_position_embeddings": length + 1,
        "vocab_size": vocab_size,
        "hidden_act": "gelu",
    }


def _bert_rules(settings: Settings, config: Settings) -> list[Rule]:
    width = settings["d_model"]
    rules = [
        Rule(f"{BACKBONE}embeddings.token.weight", ("bert.embeddings.word_embeddings.weight",)),
        Rule(f"{BACKBONE}embeddings.position.weight", ("bert.embeddings.position_embeddings.weight",)),
        Rule(f"{BACKBONE}embeddings.segment.weight", ("bert.embeddings.token_type_embeddings.weight",)),
        *_pair(f"{BACKBONE}embeddings.norm", "bert.embeddings.LayerNorm"),
        *_pair("head.transform.0", "cls.predictions.transform.dense"),
        *_pair("head.transform.2", "cls.predictions.transform.LayerNorm"),
        Rule("head.output.bias", ("cls.predictions.bias",)),
    ]
    for index in range(settings["num_layers"]):
        ours, theirs = f"{BACKBONE}stack.layers.{index}", f"bert.encoder.layer.{index}"
        for kind in ("weight", "bias"):
            parts = tuple(f"{theirs}.attention.self.{name}.{kind}" for name in ("query", "key", "value"))
            rules.append(Rule(f"{ours}.attention.qkv.{kind}", parts, (width,) * 3))
        for mine, other in (
            ("attention.out", "attention.output.dense"),
            ("attention_norm", "attention.output.LayerNorm"),
            ("feed_forward.up", "intermediate.dense"),
            ("feed_forward.down", "output.dense"),
            ("feed_forward_norm", "output.LayerNorm"),
        ):
            rules += _pair(f"{ours}.{mine}", f"{theirs}.{other}")
    return rules


# ---------------------------------------------------------------------------------------------------------------- T5


def _t5_settings(config: Settings, weights: State) -> tuple[Settings, int]:
    activation = {"relu": "relu", "gated-gelu": "geglu_tanh"}.get(config.get("feed_forward_proj", "relu"))
    if activation is None:
        raise UnsupportedError(f"config.json: feed_forward_proj={config['feed_forward_proj']!r} is not known here")
    made = {
        "d_model": config["d_model"],
        "num_layers": config["num_layers"],
        "decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "num_heads": config["num_heads"],
        "head_dim": config["d_kv"],
        "ffn_dim": config["d_ff"],
        "norm_eps": config.get("layer_norm_epsilon", 1e-6),
        "positions": "relative",
        "relative_buckets": config.get("relative_attention_num_buckets", 32),
        "relative_distance": config.get("relative_attention_max_distance", 128),
        "activation": activation,
        "scale_attention": False,
        "tie_embeddings": "lm_head.weight" not in weights,  # not all versions of their config.json say so
    }
    return made, config.get("n_positions", 512)


def _t5_config(settings: Settings, vocab_size: int, length: int) -> Settings:
    gated = settings["activation"] == "geglu_tanh"
    _wanted(
        settings,
        norm="rmsnorm",
        positions="relative",
        activation="geglu_tanh" if gated else "relu",
        bias=False,
        scale_attention=False,
        num_kv_heads=settings["num_heads"],
    )
    return {
        "d_model": settings["d_model"],
        "num_layers": settings["num_layers"],
        "num_decoder_layers": settings["decoder_layers"] or settings["num_layers"],
        "num_heads": settings["num_heads"],
        "d_kv": settings["head_dim"],
        "d_ff": settings["ffn_dim"],
        "layer_norm_epsilon": settings["norm_eps"],
        "relative_attention_num_buckets": settings["relative_buckets"],
        "relative_attention_max_distance": settings["relative_distance"],
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": settings["tie_embeddings"],
        "is_encoder_decoder": True,
        "n_positions": length,
        "vocab_size": vocab_size,
    }


def _t5_rules(settings: Settings, config: Settings) -> list[Rule]:
    queries, keys = _attention(settings)
    tied = settings["tie_embeddings"]
    # T5 with tied embeddings multiplies the decoder's last vectors with d_model ** -0.5; here the last norm's weights do.
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    last = settings["d_model"] ** -0.5 if scaled else 1.0
    rules = [
        Rule(f"{BACKBONE}source_embeddings.token.weight", ("shared.weight",)),
        Rule(f"{BACKBONE}target_embeddings.token.weight", ("shared.weight",)),
        Rule(f"{BACKBONE}encoder.norm.weight", ("encoder.final_layer_norm.weight",)),
        Rule(f"{BACKBONE}decoder.norm.weight", ("decoder.final_layer_norm.weight",), scale=last),
    ]
    if not tied:
        rules.append(Rule("head.weight", ("lm_head.weight",)))
    for side, count in (
        ("encoder", settings["num_layers"]),
        ("decoder", settings["decoder_layers"] or settings["num_layers"]),
    ):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rules.append(Rule(f"{BACKBONE}{side}.relative.bias.weight", (first,)))
        for index in range(count):
            ours, theirs = f"{BACKBONE}{side}.layers.{index}", f"{side}.block.{index}.layer"
            own = f"{theirs}.0.SelfAttention"
            qkv = tuple(f"{own}.{name}.weight" for name in "qkv")
            rules += [
                Rule(f"{ours}.attention_norm.weight", (f"{theirs}.0.layer_norm.weight",)),
                Rule(f"{ours}.attention.qkv.weight", qkv, (queries, keys, keys)),
                Rule(f"{ours}.attention.out.weight", (f"{own}.o.weight",)),
            ]
            ffn = 1
            if side == "decoder":
                ffn, cross = 2, f"{theirs}.1.EncDecAttention"
                rules += [
                    Rule(f"{ours}.cross_norm.weight", (f"{theirs}.1.layer_norm.weight",)),
                    Rule(f"{ours}.cross_attention.query.weight", (f"{cross}.q.weight",)),
                    Rule(
                        f"{ours}.cross_attention.key_value.weight",
                        (f"{cross}.k.weight", f"{cross}.v.weight"),
                        (keys, keys),
                    ),
                    Rule(f"{ours}.cross_attention.out.weight", (f"{cross}.o.weight",)),
                ]
            dense = f"{theirs}.{ffn}.DenseReluDense"
            gated = settings["activation"] == "geglu_tanh"
            up = (f"{dense}.wi_0.weight", f"{dense}.wi_1.weight") if gated else (f"{dense}.wi.weight",)
            rules += [
                Rule(f"{ours}.feed_forward_norm.weight", (f"{theirs}.{ffn}.layer_norm.weight",)),
                Rule(f"{ours}.feed_forward.up.weight", up, (settings["ffn_dim"],) * 2 if gated else ()),
                Rule(f"{ours}.feed_forward.down.weight", (f"{dense}.wo.weight",)),
            ]
    return rules


LAYOUTS = {
    layout.model_type: layout
    for layout in (
        Layout(
            model_type="gpt2",
            bare="GPT2Model",
            classes={"clm": "GPT2LMHeadModel", "chat": "GPT2LMHeadModel"},
            architecture="decoder",
            objective="clm",
            settings=_gpt2_settings,
            config=_gpt2_config,
            rules=_gpt2_rules,
            prefix="transformer.",
        ),
        Layout(
            model_type="llama",
            bare="LlamaModel",
            classes={"clm": "LlamaForCausalLM", "chat": "LlamaForCausalLM"},
            architecture="decoder",
            objective="clm",
            settings=_llama_settings,
            config=_llama_config,
            rules=_llama_rules,
            prefix="model.",
        ),
        Layout(
            model_type="bert",
            bare="BertModel",
            classes={"mlm": "BertForMaskedLM"},
            architecture="encoder",
            objective="mlm",
            settings=_bert_settings,
            config=_bert_config,
            rules=_bert_rules,
            prefix="bert.",
        ),
        Layout(
            model_type="t5",
            bare="T5Model",
            classes={"seq2seq": "T5ForConditionalGeneration"},
            architecture="encoder_decoder",
            objective="seq2seq",
            settings=_t5_settings,
            config=_t5_config,
            rules=_t5_rules,
        ),
    )
}
"""By the ``model_type`` of config.json."""


_PLAIN = {
    "norm_placement": "before",
    "embedding_norm": False,
    "scale_embeddings": False,
    "scale_attention": True,
    "experts": 0,
    "recurrence": "none",
}
"""What the published networks have in common, unless a layout says otherwise."""


def _pair(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in ("weight", "bias")]


def _only(config: Settings, **values: Any) -> None:
    """Refuse a published network that does what ours does not."""
    for key, value in values.items():
        if config.get(key, value) != value:
            raise UnsupportedError(f"config.json: {key}={config[key]!r} is not known here, only {value!r}")


def _wanted(settings: Settings, **values: Any) -> None:
    """Refuse a network of ours that the published layout cannot hold."""
    for key, value in (_PLAIN | values).items():
        if settings[key] != value:
            raise UnsupportedError(
                f"architecture.{key}={settings[key]} has no place in that layout, which has {key}={value}"
            )


def _whole_heads(settings: Settings) -> Settings:
    """Return what heads are like that share no keys and divide the width among them."""
    return {"num_kv_heads": settings["num_heads"], "head_dim": settings["d_model"] // settings["num_heads"]}
