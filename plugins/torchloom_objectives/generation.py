"""Text generation, token by token, alike for every architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem, TorchloomError

UNDECODED = "\ufffd"
"""What tokenizers give for bytes that are not yet a whole character."""


def generate(model: Model, request: GenerateRequest, tokenizer: Tokenizer, spec: TokenSpec) -> list[str]:
    """Continue prompts.

    All prompts are continued together, whatever their lengths: where one has a token still to be read, that is fed in
    place of a sampled one. Each sample has a random source of its own, drawn from the request's; so it depends on its
    prompt and its number, not on its neighbours. An empty prompt starts from the token "bos", else "eos", else a line
    break, else the first ordinary token; that start is not shown. A sample ends early at the token "eos", and before a
    text that the request says to stop at.

    A model of whole sequences sees the text from the start on until that fills the context; then the oldest half is
    forgotten, and so on each time. This holds with a cache and without, for Transformers and recurrent networks alike,
    so that all of them compute the same. A model of feature vectors (many-to-one) sees the last ``context_length``
    tokens.

    Args:
        model: In evaluation mode, its protocol ``sequence`` or ``features``.
        request: What to make; at least one sample a prompt is made.
        tokenizer: The one the model was trained with.
        spec: What the model was trained on.

    Returns:
        The texts, prompts included, in the order of the samples.

    Raises:
        ConfigError: A number in the request is out of its range.
        DataError: A prompt holds what the tokenizer does not know.
        TorchloomError: The model's outputs are not finite.
    """
    _check(request)
    given = list(request.prompts) or [""]
    prompts = [given[number % len(given)] for number in range(max(request.num_samples, len(given)))]
    generators = _generators(len(prompts), request.generator)
    shown: list[list[int]] = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    starts = [ids or _beginning(tokenizer, spec) for ids in shown]
    stream = None if request.on_token is None else _Stream(tokenizer, shown[0], request.on_token, request.stop)
    endings = [_Ending(tokenizer, ids, request.stop) for ids in shown]
    made = _continue(model, starts, request, generators, spec, endings, stream)
    if stream is not None:
        stream.close()
    return [prompt + ending.text(new) for prompt, ending, new in zip(prompts, endings, made, strict=True)]


def filter_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Rule tokens out by setting their logits to minus infinity; the most likely token always stays.

    Args:
        logits: ``(batch, vocab)``.
        top_k: Keep this many of the most likely.
        top_p: Keep the fewest of the most likely whose probabilities, after ``top_k``, add up to at least this.

    Returns:
        ``(batch, vocab)``.
    """
    top_p = None if top_p == 1 else top_p  # rounding must not cost a token
    if top_k is None and top_p is None:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    if top_p is not None:
        probability = ranked.softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability
        before[:, 0] = -1.0
        ranked[before >= top_p] = -torch.inf
    return torch.empty_like(logits).scatter_(-1, order, ranked)


def penalise_repetition(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Make tokens that stand in the text already less likely.

    Args:
        logits: ``(batch, vocab)``.
        tokens: Text so far, int64 ``(batch, seq)``.
        penalty: Positive logits are divided by it, negative ones multiplied; 1 changes nothing.

    Returns:
        ``(batch, vocab)``.

    Source: Keskar et al., 2019, CTRL, section 4.1.
    """
    if penalty == 1:
        return logits
    seen = logits.gather(1, tokens)
    return logits.scatter(1, tokens, torch.where(seen > 0, seen / penalty, seen * penalty))


def _continue(
    model: Model,
    starts: list[list[int]],
    request: GenerateRequest,
    generators: list[torch.Generator],
    spec: TokenSpec,
    endings: list[_Ending],
    stream: _Stream | None,
) -> list[list[int]]:
    """Generate behind each of ``starts``; return each row's new ids, without "eos"."""
    predict = _Predictor(model, len(starts), spec.context_length, request.use_cache)
    tokens = torch.tensor([start[: min(map(len, starts))] for start in starts])
    made: list[list[int]] = [[] for _ in starts]
    running = set(range(len(starts))) if request.max_new_tokens else set()
    while running:
        length = tokens.shape[1]
        ready = [row for row in sorted(running) if len(starts[row]) <= length]
        new = torch.tensor([start[length] if length < len(start) else 0 for start in starts])
        logits = predict(tokens)
        if ready:
            own = [generators[row] for row in ready]
            logits = penalise_repetition(logits[ready], tokens[ready], request.repetition_penalty)
            new[ready] = _choose(logits, request, own)
        tokens = torch.cat((tokens, new[:, None]), dim=1)
        for row in ready:
            token = int(new[row])
            if token == spec.eos_id:
                running.discard(row)
                continue
            made[row].append(token)
            if row == 0 and stream is not None:
                stream.push(token)
            if len(made[row]) == request.max_new_tokens or endings[row].reached(made[row]):
                running.discard(row)
    return made


class _Ending:
    """The text of one sample's new tokens, which ends before a text to stop at."""

    def __init__(self, tokenizer: Tokenizer, shown: list[int], stop: Sequence[str]) -> None:
        self.tokenizer, self.shown, self.stop = tokenizer, shown, tuple(stop)
        self.known = len(tokenizer.decode(shown))

    def reached(self, new: list[int]) -> bool:
        """Whether there is a text to stop at in what is new."""
        return bool(self.stop) and _cut(self._decoded(new), self.stop) is not None

    def text(self, new: list[int]) -> str:
        """Return the text of new tokens up to the first text to stop at."""
        text = self._decoded(new)
        return text[: _cut(text, self.stop)]

    def _decoded(self, new: list[int]) -> str:
        return self.tokenizer.decode(self.shown + new)[self.known :]


def _cut(text: str, stop: Sequence[str]) -> int | None:
    """Return where the first of some texts begins, or None if none of them is there."""
    places = [place for place in (text.find(one) for one in stop) if place >= 0]
    return min(places, default=None)


class _Predictor:
    """Logits of the token behind a growing text; the rule about full contexts lives here alone."""

    def __init__(self, model: Model, batch_size: int, context_length: int, use_cache: bool) -> None:
        self.model = model
        self.batch_size = batch_size
        self.context_length = context_length
        self.device = next(model.parameters()).device
        self.whole = model.protocol == "sequence"
        keeps_state = type(model.architecture).new_state is not Architecture.new_state
        self.use_cache = use_cache and self.whole and keeps_state
        self.state: object = None
        self.begin = 0
        self.fed = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, vocab)`` on the CPU for ``tokens`` ``(batch, seq)``, longer by one than last time."""
        architecture = self.model.architecture
        length = tokens.shape[1]
        if not self.whole:
            vectors = architecture.features(tokens[:, -self.context_length :].to(self.device))
        else:
            begin = self._begin(length)
            if begin != self.begin:
                self.begin, self.state = begin, None
            if self.use_cache and self.state is None:
                self.state = architecture.new_state(self.batch_size, self.context_length)
                self.fed = self.begin
            seen = tokens[:, self.fed if self.use_cache else self.begin :].to(self.device)
            vectors = architecture.sequence(seen, state=self.state)[:, -1]
            self.fed = length
        outputs: Tensor = vectors if self.model.head is None else self.model.head(vectors)
        return outputs.double().cpu()

    def _begin(self, length: int) -> int:
        """Return the first token that is seen of a text: a full context forgets its oldest half, and so on each time."""
        forgotten = self.context_length + 1 - (self.context_length + 1) // 2
        return forgotten * -(-max(length - self.context_length, 0) // forgotten)


def _choose(logits: Tensor, request: GenerateRequest, generators: list[torch.Generator]) -> Tensor:
    """Return one token id a row, ``(batch,)``."""
    if not logits.isfinite().all():
        raise TorchloomError("the model's outputs are not finite, so nothing can be generated: training diverged")
    if request.temperature == 0:
        return logits.argmax(dim=-1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / request.temperature
    probability = filter_logits(logits, request.top_k, request.top_p).softmax(dim=-1)
    rows = zip(probability, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def _generators(count: int, source: torch.Generator | None) -> list[torch.Generator]:
    seeds = torch.randint(2**63 - 1, (count,), generator=source)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def _check(request: GenerateRequest) -> None:
    wrong = [
        Problem(name, f"{value} is out of range", f"give {allowed}")
        for name, value, good, allowed in (
            ("num_samples", request.num_samples, request.num_samples >= 1, "at least 1"),
            ("max_new_tokens", request.max_new_tokens, request.max_new_tokens >= 0, "at least 0"),
            ("temperature", request.temperature, request.temperature >= 0, "at least 0; 0 is greedy"),
            ("top_k", request.top_k, request.top_k is None or request.top_k >= 1, "at least 1, or leave it out"),
            ("repetition_penalty", request.repetition_penalty, request.repetition_penalty > 0, "above 0; 1 is none"),
            ("stop", request.stop, all(request.stop), "texts that are not empty"),
            ("top_p", request.top_p, request.top_p is None or 0 < request.top_p <= 1, "above 0 and at most 1"),
        )
        if not good
    ]
    if wrong:
        raise ConfigError(wrong)


def _beginning(tokenizer: Tokenizer, spec: TokenSpec) -> list[int]:
    """Return what a text without a prompt starts from."""
    for start in (spec.bos_id, spec.eos_id):
        if start is not None:
            return [start]
    try:
        ids: list[int] = tokenizer.encode("\n").tolist()
    except DataError:
        ids = []
    if ids and spec.unk_id not in ids:
        return ids
    special = {spec.pad_id, spec.unk_id, spec.mask_id}
    return [next(token for token in range(spec.vocab_size) if token not in special)]


class _Stream:
    """Text of tokens as they come; bytes that are only a part of a character wait for the rest of it.

    The tokens of the last piece are decoded again with the next one, since a tokenizer may put a space between them.
    """

    def __init__(
        self, tokenizer: Tokenizer, shown: list[int], emit: Callable[[str], None], stop: Sequence[str] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.receiver = emit
        self.stop = tuple(stop)
        self.held = ""
        self.old = shown
        self.new: list[int] = []

    def push(self, token: int) -> None:
        """Take one token."""
        self.new.append(token)
        if not self.tokenizer.decode(self.old + self.new).endswith(UNDECODED):
            self._take()
            # What may be the beginning of a text to stop at waits until that is known.
            waiting = max((len(one) - 1 for one in self.stop), default=0)
            self._emit(max(0, len(self.held) - waiting))

    def close(self) -> None:
        """Give out what is waiting."""
        self._take()
        self._emit(len(self.held))

    def _take(self) -> None:
        if self.new:
            self.held += self.tokenizer.decode(self.old + self.new)[len(self.tokenizer.decode(self.old)) :]
            self.old, self.new = self.new, []

    def _emit(self, length: int) -> None:
        cut = _cut(self.held, self.stop)
        if cut is not None:
            length, self.held = cut, self.held[:cut]
        if length:
            self.receiver(self.held[:length])
            self.held = self.held[length:]
