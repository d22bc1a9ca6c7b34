"""Recurrent networks, declared by name."""

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the three cells."""
    return [
        Component(
            kind="architecture",
            name="rnn",
            target="torchloom_recurrent.recurrent:RNN",
            config="torchloom_recurrent.configs:RNNConfig",
            summary="Simple recurrent network",
            source="Elman 1990, Finding structure in time, https://doi.org/10.1207/s15516709cog1402_1",
        ),
        Component(
            kind="architecture",
            name="gru",
            target="torchloom_recurrent.recurrent:GRU",
            config="torchloom_recurrent.configs:GRUConfig",
            summary="Gated recurrent units",
            source="Cho et al. 2014, https://arxiv.org/abs/1406.1078",
        ),
        Component(
            kind="architecture",
            name="lstm",
            target="torchloom_recurrent.recurrent:LSTM",
            config="torchloom_recurrent.configs:LSTMConfig",
            summary="Long short-term memory",
            source="Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735",
        ),
    ]
