"""Chat: continue a conversation as the assistant would."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from torchloom.contracts.chat import ChatTemplate, Message, checked, encode
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import GenerateRequest, Model, Samples
from torchloom.contracts.spec import ChatSpec, Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError, UnsupportedError
from torchloom_objectives.clm import CLM
from torchloom_objectives.configs import ChatConfig
from torchloom_objectives.generation import continued, needed
from torchloom_objectives.masking import IGNORED


class Chat(CLM):
    """Cross-entropy of the assistant's turns, each with the token that ends it, summed over their tokens.

    All turns of a conversation are learnt from at once, each behind all that was said before it.

    Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.5; the loss on answers alone as in
    https://huggingface.co/docs/trl/sft_trainer (assistant_only_loss).
    """

    accepts = (ChatSpec,)
    continues: ClassVar[bool] = False
    spec: ChatSpec

    def __init__(self, config: ChatConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.template = ChatTemplate.of(self.spec)

    def targets(self, batch: Batch) -> Tensor:
        """Return the token that each position predicts, int64 ``(batch, seq)``, `IGNORED` where it is of no answer."""
        return super().targets(batch).masked_fill(~batch["answer"][:, 1:], IGNORED)

    def metrics(self) -> dict[str, Metric]:
        """Return those of `CLM`, and ``exact``: the share of answers that are written out right, taking likeliest tokens.

        An answer counts whose every token is the likeliest behind the true ones, which is what greedy generation writes.
        """
        return {**super().metrics(), "exact": MeanMetric()}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add the counts of one batch."""
        super().update_metrics(metrics, outputs, batch)
        targets = self.targets(batch)
        counted = targets != IGNORED
        begins = counted & ~torch.nn.functional.pad(counted, (1, 0))[:, :-1]
        number = begins.flatten().cumsum(0)[counted.flatten()] - 1
        wrong = (outputs.argmax(dim=-1) != targets)[counted]
        mistakes = torch.zeros(int(begins.sum()), device=targets.device).index_add_(0, number, wrong.float())
        if len(mistakes):
            metrics["exact"].update(mistakes == 0)

    def generate(self, model: Model, request: GenerateRequest, tokenizer: Tokenizer | None = None) -> Samples:
        """Answer each prompt: a message of the user, or a whole conversation as JSON, a list of messages.

        An answer ends at the token behind an answer; the template and the prompts are not part of what is returned.

        Raises:
            UnsupportedError: There is no tokenizer, or no prompt to answer.
            DataError: A conversation given as JSON is none, or ends in an answer.
        """
        tokenizer = needed(tokenizer, "chat")
        if not request.prompts or not all(prompt.strip() for prompt in request.prompts):
            raise UnsupportedError("objective chat answers a message; give one as the prompt")
        asked = [self.template.pieces(conversation(prompt), answering=True) for prompt in request.prompts]
        special = dict(zip(self.spec.special_tokens, self.spec.special_ids, strict=True))
        starts = [ids.tolist() for ids, _ in encode(asked, tokenizer, special)]
        ending = dataclasses.replace(self.spec, eos_id=self.spec.end_id)
        return Samples(texts=continued(model, request, tokenizer, ending, starts))


def conversation(prompt: str) -> Sequence[Message]:
    """Return the messages that a prompt means.

    Raises:
        DataError: It is a list of messages with a fault in one, or the last of them is an answer.
    """
    try:
        messages = json.loads(prompt)
    except ValueError:
        messages = None
    if not (isinstance(messages, list) and messages and isinstance(messages[0], dict) and "role" in messages[0]):
        return [{"role": "user", "content": prompt}]
    try:
        found = checked(messages)
    except DataError as error:
        raise DataError(f"the conversation to answer {error}") from error
    if found[-1]["role"] == "assistant":
        raise DataError("the conversation to answer ends in an answer; end it with a message of the user")
    return found
