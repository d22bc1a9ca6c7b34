"""Objectives, declared by name."""

from __future__ import annotations

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare what this plugin supplies."""
    return [
        Component(
            kind="objective",
            name="classification",
            target="torchloom_objectives.classification:Classification",
            config="torchloom_objectives.configs:ClassificationConfig",
            summary="Name the class of each example: cross-entropy, accuracy, F1, confusion matrix.",
        ),
        Component(
            kind="objective",
            name="clm",
            target="torchloom_objectives.clm:CLM",
            config="torchloom_objectives.configs:CLMConfig",
            summary="Predict the next token; generates text.",
            source="Bengio et al., A Neural Probabilistic Language Model, JMLR 2003",
        ),
        Component(
            kind="objective",
            name="chat",
            target="torchloom_objectives.chat:Chat",
            config="torchloom_objectives.configs:ChatConfig",
            summary="Answer in a conversation: loss on the assistant's turns alone; generates answers.",
            source="arXiv:2203.02155",
        ),
        Component(
            kind="objective",
            name="adversarial",
            target="torchloom_objectives.adversarial:Adversarial",
            config="torchloom_objectives.configs:AdversarialConfig",
            summary="Generator against discriminator: cross-entropy, hinge or WGAN-GP; generates images.",
            source="arXiv:1406.2661",
        ),
        Component(
            kind="objective",
            name="sentiment",
            target="torchloom_objectives.classification:Sentiment",
            config="torchloom_objectives.configs:TextClassificationConfig",
            summary="Name the mood of each text: accuracy, F1, confusion matrix.",
            source="arXiv:1810.04805",
        ),
        Component(
            kind="objective",
            name="entailment",
            target="torchloom_objectives.classification:Entailment",
            config="torchloom_objectives.configs:EntailmentConfig",
            summary="Does the second text follow from the first? Accuracy, F1, confusion matrix.",
            source="arXiv:1810.04805",
        ),
        Component(
            kind="objective",
            name="mlm",
            target="torchloom_objectives.mlm:MLM",
            config="torchloom_objectives.configs:MLMConfig",
            summary="Guess hidden tokens from both sides.",
            source="arXiv:1810.04805",
        ),
        Component(
            kind="objective",
            name="nsp",
            target="torchloom_objectives.nsp:NSP",
            config="torchloom_objectives.configs:NSPConfig",
            summary="Does the second piece of text follow the first? Alone, or with hidden tokens as in BERT.",
            source="arXiv:1810.04805",
        ),
        Component(
            kind="objective",
            name="seq2seq",
            target="torchloom_objectives.seq2seq:Seq2Seq",
            config="torchloom_objectives.configs:Seq2SeqConfig",
            summary="Write a second text from a first (translation, summaries), or the pieces cut out of running text.",
            source="arXiv:1409.3215; arXiv:1910.10683",
        ),
        Component(
            kind="objective",
            name="qa",
            target="torchloom_objectives.qa:QA",
            config="torchloom_objectives.configs:QAConfig",
            summary="Find the answer to a question in a text: exact match and F1.",
            source="arXiv:1606.05250",
        ),
        Component(
            kind="objective",
            name="forecast",
            target="torchloom_objectives.forecast:Forecast",
            config="torchloom_objectives.configs:ForecastConfig",
            summary="Predict the next values of a series: MAE, beside the last value repeated.",
        ),
        Component(
            kind="objective",
            name="distillation",
            target="torchloom_objectives.distillation:Distillation",
            config="torchloom_objectives.configs:DistillationConfig",
            summary="Learn another run's task from its answers, beside the true ones.",
            source="arXiv:1503.02531",
        ),
    ]
