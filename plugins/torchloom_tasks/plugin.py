"""Datasets of tasks: labelled text, questions, text pairs, series and sounds, declared by name."""

from __future__ import annotations

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the datasets."""
    return [
        _dataset(
            "sentiment",
            "labelled:Sentiment",
            "Texts with one class each, such as negative and positive: TSV, CSV or JSONL",
            "Socher et al. 2013 (SST), https://aclanthology.org/D13-1170",
            tokenizer="wordpiece",
        ),
        _dataset(
            "entailment",
            "labelled:Entailment",
            "Pairs of sentences: entailment, neutral or contradiction; reads SICK, SNLI and MNLI as they come",
            "Marelli et al. 2014 (SICK); Bowman et al. 2015 (SNLI), https://arxiv.org/abs/1508.05326",
            tokenizer="wordpiece",
        ),
        Component(
            kind="dataset",
            name="hub",
            target="torchloom_tasks.hub:Hub",
            config="torchloom_tasks.configs:HubConfig",
            summary="Labelled texts, or pairs of them, from the Hugging Face hub, by name",
            source="https://huggingface.co/docs/datasets",
            needs=("datasets",),
            extra="torchloom[hub]",
            slots={"tokenizer": "wordpiece"},
        ),
        _dataset(
            "squad",
            "questions:Squad",
            "Questions whose answers are spans of a text: JSON of SQuAD 1.1 or 2.0",
            "Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; 2018, https://arxiv.org/abs/1806.03822",
            tokenizer="wordpiece",
        ),
        _dataset(
            "babi",
            "babi:Babi",
            "Stories with questions, made up without a download as bAbI's tasks 1 to 3 have them; reads the real files too",
            "Weston et al. 2015, https://arxiv.org/abs/1502.05698",
            tokenizer="word",
        ),
        _dataset(
            "lookups",
            "made_up:Lookups",
            "Tables of letters that lead to one another, to be followed to their ends; made up",
            tokenizer="word",
        ),
        _dataset(
            "facts",
            "made_up:Facts",
            "Questions about facts that stand in a file alone: those of validation and test are never trained on; made up",
            tokenizer="word",
        ),
        _dataset(
            "parallel_text",
            "parallel:ParallelText",
            "Texts and what is to be made of them (translations, summaries): two aligned files, TSV, CSV or JSONL",
            tokenizer="bpe",
        ),
        _dataset(
            "chat",
            "chat:Chat",
            "Conversations by a template: JSONL of messages, or made up about short stories",
            "https://huggingface.co/docs/transformers/chat_templating",
            tokenizer="byte",
        ),
        _dataset("timeseries", "series:TimeSeries", "Columns of numbers over time, of a CSV file or made up"),
        _dataset("audio_folder", "audio:AudioFolder", "WAV files as spectrograms, one folder a class"),
    ]


def _dataset(name: str, target: str, summary: str, source: str = "", tokenizer: str | None = None) -> Component:
    return Component(
        kind="dataset",
        name=name,
        target=f"torchloom_tasks.{target}",
        config=f"torchloom_tasks.configs:{target.partition(':')[2]}Config",
        summary=summary,
        source=source,
        slots={} if tokenizer is None else {"tokenizer": tokenizer},
    )
