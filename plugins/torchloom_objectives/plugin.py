"""Objectives: classification, language modelling and adversarial training."""

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
            name="adversarial",
            target="torchloom_objectives.adversarial:Adversarial",
            config="torchloom_objectives.configs:AdversarialConfig",
            summary="Generator against discriminator: cross-entropy, hinge or WGAN-GP; generates images.",
            source="arXiv:1406.2661",
        ),
    ]
