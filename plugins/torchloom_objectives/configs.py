"""Settings of objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchloom import option


@dataclass
class ClassificationConfig:
    """Settings of `classification`."""

    label_smoothing: float = option(
        0.0, "Share of the target that is spread over all classes.", ge=0, lt=1, source="arXiv:1512.00567, section 7"
    )
    hidden: bool = option(False, "Put a dense layer with tanh before the classes, as BERT is fine-tuned.")
    dropout: float = option(0.0, "Probability of dropping entries of what the classes are read from.", ge=0, lt=1)


@dataclass
class TextClassificationConfig(ClassificationConfig):
    """Settings of `sentiment`."""

    hidden: bool = option(
        True, "Put a dense layer with tanh before the classes, as BERT is fine-tuned.", source="arXiv:1810.04805"
    )
    dropout: float = option(
        0.1,
        "Probability of dropping entries of what the classes are read from.",
        ge=0,
        lt=1,
        source="arXiv:1810.04805, appendix A.3",
    )


@dataclass
class EntailmentConfig(TextClassificationConfig):
    """Settings of `entailment`."""

    compare: bool = option(
        False,
        "Read the classes from the means u and v over each text, |u - v| and u * v, not from one vector of both.",
        source="arXiv:1705.02364, section 3.2",
    )


@dataclass
class MaskingConfig:
    """How tokens are hidden."""

    share: float = option(
        0.15, "Share of the tokens that is hidden, special ones aside.", gt=0, le=1, source="arXiv:1810.04805"
    )
    masked: float = option(
        0.8, "Share of the hidden tokens that becomes the mask token.", ge=0, le=1, source="arXiv:1810.04805"
    )
    random: float = option(
        0.1,
        "Share of the hidden tokens that becomes a random token; the rest stays as it is.",
        ge=0,
        le=1,
        source="arXiv:1810.04805",
    )
    whole_word: bool = option(False, "Hide all tokens of a word together.")


@dataclass
class MLMConfig(MaskingConfig):
    """Settings of `mlm`."""


@dataclass
class NSPConfig(MaskingConfig):
    """Settings of `nsp`; how tokens are hidden matters with `mlm` only."""

    mlm: bool = option(False, "Guess hidden tokens too, as BERT is pre-trained.")


@dataclass
class QAConfig:
    """Settings of `qa`."""

    max_answer_length: int = option(30, "Longest answer given.", ge=1, unit="tokens", source="arXiv:1810.04805 (code)")
    null_threshold: float = option(
        0.0, "Answer nothing where that scores higher than the best span by more than this.", source="arXiv:1810.04805"
    )


@dataclass
class ForecastConfig:
    """Settings of `forecast`."""

    loss: Literal["mse", "mae"] = option("mse", "Squared or absolute difference.")


@dataclass
class Seq2SeqConfig:
    """Settings of `seq2seq`."""

    label_smoothing: float = option(
        0.0, "Share of the target that is spread over the vocabulary.", ge=0, lt=1, source="arXiv:1706.03762, 0.1"
    )
    noise_density: float = option(
        0.15, "Share of running text that is cut out, to be written.", gt=0, lt=1, source="arXiv:1910.10683"
    )
    mean_span: float = option(
        3.0, "Mean length of the pieces cut out of running text.", ge=1, unit="tokens", source="arXiv:1910.10683"
    )
    bleu: bool = option(False, "Measure BLEU (sacreBLEU) in evaluation.", source="arXiv:1804.08771")
    rouge: bool = option(False, "Measure ROUGE-1, ROUGE-2 and ROUGE-L (F1) in evaluation.")
    decoded_examples: int = option(
        128, "Examples of an evaluation that are written out, greedily, for BLEU and ROUGE.", ge=1
    )


@dataclass
class CLMConfig:
    """Settings of `clm`."""

    positions: Literal["all", "last"] = option(
        "all", "Predict the token after every position, or only the one after the whole window (many-to-one)."
    )
    bias: bool = option(False, "Give the output layer a bias.")


@dataclass
class DistillationConfig:
    """Settings of `distillation`."""

    teacher: str | None = option(
        None,
        "Run folder or checkpoint of the teacher, whose objective and tokenizer are the student's too.",
        brings_tokenizer=True,
    )
    temperature: float = option(2.0, "Divides the logits of both.", gt=0, source="arXiv:1910.01108 (code)")
    soft_weight: float = option(
        0.5, "Share of the loss that is the teacher's answers; the rest is the true ones.", ge=0, le=1
    )
    hidden_weight: float = option(
        0.0,
        "Weight of the squared difference between the outputs of blocks, which is added; 0 matches none.",
        ge=0,
        source="arXiv:1909.10351",
    )
    layers: list[int] = option(
        list,
        "For each block of the student, the teacher's that it is matched with, from 1; 0 is none. Evenly spread, the last "
        "with the last, unless given.",
        ge=0,
    )
    task: dict[str, Any] = option(
        dict, "Settings of the teacher's objective, where the student's shall differ; the others are filled in."
    )


@dataclass
class ChatConfig:
    """Settings of `chat`."""

    bias: bool = option(False, "Give the output layer a bias.")


@dataclass
class AdversarialConfig:
    """Settings of `adversarial`."""

    loss: Literal["bce", "hinge", "wgan_gp"] = option(
        "bce", "Cross-entropy (non-saturating), hinge, or Wasserstein with gradient penalty."
    )
    n_critic: int | None = option(
        None, "Discriminator steps to one of the generator; 5 for wgan_gp, else 1, unless given.", ge=1, unit="steps"
    )
    gradient_penalty: float = option(10.0, "Weight of the penalty of wgan_gp.", ge=0, source="arXiv:1704.00028")
    discriminator_lr: float | None = option(
        None, "Peak learning rate of the discriminator; optimizer.lr if none.", ge=0
    )
    generator_lr: float | None = option(None, "Peak learning rate of the generator; optimizer.lr if none.", ge=0)
    instance_noise: float = option(
        0.0,
        "Deviation of the normal noise added to all images that the discriminator sees, whose values run from -1 to 1.",
        ge=0,
        source="arXiv:1610.04490, appendix",
    )
