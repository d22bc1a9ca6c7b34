"""Sequence to sequence: write a second text from a first, or the pieces cut out of running text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch, Split
from torchloom.contracts.objective import GenerateRequest, LossSum, Model, Objective, Samples
from torchloom.contracts.spec import Seq2SeqSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, MissingDependencyError, Problem, UnsupportedError
from torchloom_objectives.clm import Perplexity
from torchloom_objectives.configs import Seq2SeqConfig
from torchloom_objectives.generation import Ending, Stream, check, in_order, needed, reorder, search, write
from torchloom_objectives.heads import tie_problems, vocabulary_layer
from torchloom_objectives.masking import IGNORED
from torchloom_objectives.spans import SpanCorruption, SpanSplit
from torchloom_objectives.text_metrics import BLEU, ROUGE, TextMetric

_PACKAGES = {"bleu": "sacrebleu", "rouge": "rouge_score"}


class Seq2Seq(Objective):
    """Cross-entropy of each token of the target behind the true ones before it, summed over the tokens; no padding.

    Running text is corrupted as T5 is pre-trained: pieces are cut out of it, and the target names them in turn.

    Source: Sutskever et al. 2014, arXiv:1409.3215; Raffel et al. 2020 (T5), arXiv:1910.10683, section 3.1.4.
    """

    accepts = (Seq2SeqSpec, TokenSpec)
    protocol = "seq2seq"
    inherits: ClassVar[frozenset[str]] = frozenset({"seq2seq"})
    continues: ClassVar[bool] = False
    spec: Seq2SeqSpec | TokenSpec
    config: Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig, spec: Spec) -> None:
        """Take the special tokens from the spec.

        Raises:
            ConfigError: No token to begin a target with, or running text whose corruption does not fit its windows.
            MissingDependencyError: BLEU or ROUGE is asked for and its package missing.
        """
        super().__init__(config, spec)
        for name, package in _PACKAGES.items():
            if getattr(config, name) and find_spec(package) is None:
                raise MissingDependencyError(
                    f"objective.{name} needs {package}, which is not installed\n    pip install 'torchloom[text-metrics]'"
                )
        known = (self.spec.bos_id, self.spec.pad_id, self.spec.eos_id)
        start = next((one for one in known if one is not None), None)
        if start is None:
            message = "objective=seq2seq begins a target with bos, pad or eos, none of which the tokenizer has"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "add bos and eos to it")])
        self.start: int = start
        self.corruption: SpanCorruption | None = None
        if isinstance(self.spec, TokenSpec):
            self.most = self.spec.context_length + 1
            self.corruption = SpanCorruption(
                config.noise_density, config.mean_span, self.spec.vocab_size, self.start, self.spec.eos_id
            )
            self.corruption.check(self.spec.context_length)
        else:
            self.most = self.spec.target_length
        self._writer: tuple[Architecture, nn.Module] | None = None

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse an embedding that is to be tied but has another shape than the output layer."""
        return tie_problems(architecture, self.spec.vocab_size)

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer, ``(batch, seq, width)`` to ``(batch, seq, vocab)``; the embedding's matrix where tied."""
        head = vocabulary_layer(architecture, self.spec.vocab_size, bias=False)
        self._writer = (architecture, head)
        return head

    def examples(self, split: Split) -> Split:
        """Return the split; of running text, one with pieces cut out."""
        if self.corruption is None:
            return split
        assert isinstance(self.spec, TokenSpec)
        return SpanSplit(split, self.corruption, self.spec.context_length)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the source, and the target without its last token; its start alone where it is not known."""
        source = batch["source"]
        start = source.new_full((len(source), 1), self.start)
        target = batch["target"][:, :-1] if "target" in batch else start
        return {"source": source, "target": target, "source_lengths": batch["source_length"]}

    def targets(self, batch: Batch) -> Tensor:
        """Return the token that each position of the target predicts, int64 ``(batch, seq)``, `IGNORED` in padding."""
        targets = batch["target"][:, 1:]
        place = torch.arange(1, targets.shape[1] + 1, device=targets.device)
        return targets.masked_fill(place >= batch["target_length"][:, None], IGNORED)

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the cross-entropy summed over the targets' tokens.

        Args:
            outputs: Logits ``(batch, seq, vocab)``.
            batch: Holds ``target`` and ``target_length``.
        """
        targets = self.targets(batch)
        total = F.cross_entropy(
            outputs.flatten(0, -2),
            targets.flatten(),
            reduction="sum",
            ignore_index=IGNORED,
            label_smoothing=self.config.label_smoothing,
        )
        return LossSum(total, (targets != IGNORED).sum())

    def metrics(self) -> dict[str, Metric]:
        """Return the share of tokens that were the most likely one, the perplexity, and what is asked for beside."""
        accuracy = MulticlassAccuracy(self.spec.vocab_size, average="micro", ignore_index=IGNORED, validate_args=False)
        found: dict[str, Metric] = {"accuracy": accuracy, "perplexity": Perplexity()}
        if self.config.bleu:
            found["bleu"] = BLEU()
        if self.config.rouge:
            found |= {name: ROUGE(name) for name in ("rouge1", "rouge2", "rougeL")}
        return found

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add one batch, writing out as many examples as are still wanted for BLEU and ROUGE.

        Raises:
            UnsupportedError: These are asked for, and there is no tokenizer.
        """
        targets = self.targets(batch)
        metrics["accuracy"].update(outputs.argmax(dim=-1).flatten(), targets.flatten())
        total = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="sum", ignore_index=IGNORED)
        metrics["perplexity"].update(LossSum(total, (targets != IGNORED).sum()))
        measures = [metric for metric in metrics.values() if isinstance(metric, TextMetric)]
        wanted = min(len(targets), self.config.decoded_examples - measures[0].seen) if measures else 0
        if wanted <= 0:
            return
        if self.tokenizer is None:
            raise UnsupportedError(
                "BLEU and ROUGE compare texts, which needs the tokenizer that the data was made with"
            )
        assert self._writer is not None
        written = self._write(*self._writer, batch["source"][:wanted], batch["source_length"][:wanted])
        texts = [self.tokenizer.decode(ids) for ids in written]
        truths = [
            self.tokenizer.decode([one for one in row if one not in (IGNORED, self.spec.eos_id)])
            for row in targets[:wanted].tolist()
        ]
        for measure in measures:
            measure.update(texts, truths)

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return, for each example, what is written from its source, greedily, and the mean loss of a target it has."""
        assert self._writer is not None
        written = self._write(*self._writer, batch["source"], batch["source_length"])
        records: list[dict[str, Any]] = [
            {"prediction": ids if tokenizer is None else tokenizer.decode(ids)} for ids in written
        ]
        if "target" not in batch:
            return records
        targets = self.targets(batch)
        losses = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED).sum(dim=1)
        means = losses / (targets != IGNORED).sum(dim=1).clamp(min=1)
        return [{**record, "loss": value} for record, value in zip(records, means.tolist(), strict=True)]

    def generate(self, model: Model, request: GenerateRequest, tokenizer: Tokenizer | None = None) -> Samples:
        """Write a text from each prompt, at most as long as the targets trained on, as `generation.continued` does it.

        The prompts are not part of what is returned.

        Raises:
            ConfigError: A number in the request is out of its range.
            UnsupportedError: There is no tokenizer, or a prompt is empty or longer than the sources trained on.
        """
        tokenizer = needed(tokenizer, "seq2seq")
        sources = [tokenizer.encode(prompt) for prompt in request.prompts]
        if not sources or any(not len(one) for one in sources):
            raise UnsupportedError("objective seq2seq writes from a text; give one as the prompt")
        check(request, len(sources))
        assert model.head is not None
        device = next(model.parameters()).device
        count = max(request.num_samples, len(sources))
        endings = [Ending(tokenizer, [], request.stop) for _ in range(count)]
        if request.num_beams > 1:
            predict = self._predictor(model.architecture, model.head, *self._padded(sources, device), request)
            starts = torch.full((len(sources), 1), self.start)
            found = search(predict, starts, self._limited(request), self._ends(), endings)
            return Samples(texts=in_order(found, endings, request))
        rows = [sources[number % len(sources)] for number in range(count)]
        stream = None if request.on_token is None else Stream(tokenizer, [], request.on_token, request.stop)
        predict = self._predictor(model.architecture, model.head, *self._padded(rows, device), request)
        written = write(predict, [[self.start]] * count, self._limited(request), self._ends(), endings, stream)
        return Samples(texts=[ending.text(ids) for ending, ids in zip(endings, written, strict=True)])

    def _write(self, architecture: Architecture, head: nn.Module, source: Tensor, lengths: Tensor) -> list[list[int]]:
        """Write a target for each source greedily, without its start and end."""
        request = GenerateRequest(max_new_tokens=self.most, temperature=0)
        predict = self._predictor(architecture, head, source, lengths, request)
        return write(predict, [[self.start]] * len(source), request, self._ends())

    def _predictor(
        self, architecture: Architecture, head: nn.Module, source: Tensor, lengths: Tensor, request: GenerateRequest
    ) -> _Predictor:
        most = self._limited(request).max_new_tokens if request.use_cache else None
        return _Predictor(architecture, head, source, lengths, most, request.num_beams)

    def _ends(self) -> set[int]:
        return set() if self.spec.eos_id is None else {self.spec.eos_id}

    def _limited(self, request: GenerateRequest) -> GenerateRequest:
        """Return a request for no more tokens than the targets trained on have."""
        return dataclasses.replace(request, max_new_tokens=min(request.max_new_tokens, self.most))

    def _padded(self, rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=self.spec.pad_id or 0)
        return padded.to(device), torch.tensor([len(row) for row in rows], device=device)


class _Predictor:
    """Logits of the token behind a growing target."""

    @torch.no_grad()
    def __init__(
        self, architecture: Architecture, head: nn.Module, source: Tensor, lengths: Tensor, most: int | None, beams: int
    ) -> None:
        """Read the sources, each once.

        Args:
            architecture: Follows `seq2seq`.
            head: Of the vocabulary.
            source: int64 ``(batch, source_seq)``.
            lengths: Real tokens of each, ``(batch,)``.
            most: Tokens that a state shall have room for; None to keep no state.
            beams: Targets that grow from each source.
        """
        self.architecture, self.head, self.device = architecture, head, source.device
        memory = architecture.encode(source, lengths)
        rows = torch.arange(len(source), device=self.device).repeat_interleave(beams)
        self.memory = memory if beams == 1 else memory[rows]
        keeps_state = most and type(architecture).new_state is not Architecture.new_state
        self.state = architecture.new_state(len(rows), most) if most and keeps_state else None

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, vocab)`` on the CPU for ``tokens`` ``(batch, seq)``, longer by one than last time."""
        seen = (tokens if self.state is None else tokens[:, -1:]).to(self.device)
        vectors = self.architecture.decode(seen, self.memory, state=self.state)
        logits: Tensor = self.head(vectors[:, -1])
        return logits.double().cpu()

    def reorder(self, rows: Tensor) -> None:
        """Let row ``i`` go on from what row ``rows[i]`` was, which has the same source."""
        reorder(self.state, rows.to(self.device))
