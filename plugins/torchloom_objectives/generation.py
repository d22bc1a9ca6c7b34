"""Text generation, token by token, alike for every architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem, TorchloomError, UnsupportedError

UNDECODED = "\ufffd"
"""What tokenizers give for bytes that are not yet a whole character."""


class Predictor(Protocol):
    """What tells how likely each next token is."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return logits ``(batch, vocab)`` on the CPU behind ``tokens`` ``(batch, seq)``, one longer than last time."""

    def reorder(self, rows: Tensor) -> None:
        """Let row ``i`` go on from what row ``rows[i]`` was, int64 ``(batch,)``."""


def needed(tokenizer: Tokenizer | None, objective: str) -> Tokenizer:
    """Return the tokenizer that an objective writes text with.

    Raises:
        UnsupportedError: There is none.
    """
    if tokenizer is None:
        raise UnsupportedError(
            f"objective {objective} generates text, which needs the tokenizer it was trained with; where it was imported "
            "without, import it again with tokenizer_file=FILE"
        )
    return tokenizer


def generate(model: Model, request: GenerateRequest, tokenizer: Tokenizer, spec: TokenSpec) -> list[str]:
    """Continue prompts; see `continued`.

    An empty prompt starts from the token "bos", else "eos", else a line break, else the first ordinary token; that start
    is not shown.

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
    prompts = list(request.prompts) or [""]
    shown: list[list[int]] = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    starts = [ids or _beginning(tokenizer, spec) for ids in shown]
    texts = continued(model, request, tokenizer, spec, starts, shown)
    return [prompts[number % len(prompts)] + text for number, text in enumerate(texts)]


def continued(
    model: Model,
    request: GenerateRequest,
    tokenizer: Tokenizer,
    spec: TokenSpec,
    starts: Sequence[list[int]],
    shown: Sequence[list[int]] | None = None,
) -> list[str]:
    """Continue token ids.

    All are continued together, whatever their lengths: where one has a token still to be read, that is fed in place of a
    sampled one. Each sample has a random source of its own, drawn from the request's; so it depends on its prompt and its
    number, not on its neighbours. A sample ends early at the token "eos", at "bos", which begins another text, and before a
    text that the request says to stop at. A beam search looks for the likeliest text behind one prompt after the other.

    A model of whole sequences sees the text from the start on until that fills the context; then the oldest half is
    forgotten, and so on each time. This holds with a cache and without, for Transformers and recurrent networks alike,
    so that all of them compute the same. A model of feature vectors (many-to-one) sees the last ``context_length``
    tokens.

    Args:
        model: In evaluation mode, its protocol ``sequence`` or ``features``.
        request: What to make, but for its prompts; at least one sample a start is made.
        tokenizer: The one the model was trained with.
        spec: What the model was trained on.
        starts: What stands before the new tokens, none of them empty.
        shown: What of that text is decoded with them; all of it unless given.

    Returns:
        The new texts alone, in the order of the samples: those of all starts, then again, until there are enough.

    Raises:
        ConfigError: A number in the request is out of its range.
        TorchloomError: The model's outputs are not finite.
    """
    check(request, len(starts))
    shown = starts if shown is None else shown
    count = max(request.num_samples, len(starts))
    rows = [number % len(starts) for number in range(count)]
    endings = [Ending(tokenizer, shown[row], request.stop) for row in rows]
    # Where texts stand one behind the other, the token that begins one ends that before it, and may be all that does.
    ends = {token for token in (spec.eos_id, spec.bos_id) if token is not None}
    if request.num_beams > 1:
        found = []
        for start, ending in zip(starts, endings, strict=False):
            predict = _Predictor(model, request.num_beams, spec.context_length, request.use_cache)
            found += search(predict, torch.tensor([start]), request, ends, [ending])
        return in_order(found, endings, request)
    stream = None if request.on_token is None else Stream(tokenizer, shown[0], request.on_token, request.stop)
    predict = _Predictor(model, count, spec.context_length, request.use_cache)
    made = write(predict, [starts[row] for row in rows], request, ends, endings, stream)
    return [ending.text(new) for ending, new in zip(endings, made, strict=True)]


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


@torch.inference_mode()
def write(
    predict: Predictor,
    starts: Sequence[list[int]],
    request: GenerateRequest,
    ends: Collection[int],
    endings: Sequence[Ending] | None = None,
    stream: Stream | None = None,
) -> list[list[int]]:
    """Generate behind each of ``starts``, token by token.

    Args:
        predict: Predicts as many rows as there are starts.
        starts: Token ids, none of them empty.
        request: How to choose tokens, and how many.
        ends: The tokens that end a row.
        endings: What says where each row ends beside that; needed for texts to stop at.
        stream: Is given the first row's tokens.

    Returns:
        Each row's new ids, without the token that ended them.

    Raises:
        TorchloomError: The model's outputs are not finite.
    """
    generators = _generators(len(starts), request.generator)
    tokens = torch.tensor([start[: min(map(len, starts))] for start in starts])
    made: list[list[int]] = [[] for _ in starts]
    running = set(range(len(starts))) if request.max_new_tokens else set()
    while running:
        length = tokens.shape[1]
        ready = [row for row in sorted(running) if len(starts[row]) <= length]
        new = [start[length] if length < len(start) else 0 for start in starts]
        logits = predict(tokens)
        if ready:
            own = [generators[row] for row in ready]
            rows = slice(None) if len(ready) == len(starts) else ready
            logits = penalise_repetition(_finite(logits[rows]), tokens[rows], request.repetition_penalty)
            for row, token in zip(ready, _choose(logits, request, own).tolist(), strict=True):
                new[row] = token
        tokens = torch.cat((tokens, torch.tensor(new)[:, None]), dim=1)
        for row in ready:
            token = new[row]
            if token in ends:
                running.discard(row)
                continue
            made[row].append(token)
            if row == 0 and stream is not None:
                stream.push(token)
            if len(made[row]) == request.max_new_tokens or (endings and endings[row].reached(made[row])):
                running.discard(row)
    if stream is not None:
        stream.close()
    return made


@torch.inference_mode()
def search(
    predict: Predictor,
    starts: Tensor,
    request: GenerateRequest,
    ends: Collection[int],
    endings: Sequence[Ending] | None = None,
) -> list[list[list[int]]]:
    """Look for the likeliest texts behind each of ``starts`` by a beam search.

    At each step every text that is held goes on with every token, and the ``num_beams`` likeliest are held that have not
    ended. One that ends among the likeliest is finished; its score is its log-probability divided by its length to the
    power of ``length_penalty``. A search is over with ``num_beams`` finished texts none of which scores less than the
    likeliest text held, at its present length, or when that is ``max_new_tokens``.

    Args:
        predict: Predicts ``num_beams`` rows for each start, these together.
        starts: Token ids, int64 ``(batch, seq)``.
        request: Its beams, length penalty, repetition penalty and greatest length.
        ends: The tokens that end a text.
        endings: What says where the text behind each start ends beside that; needed for texts to stop at.

    Returns:
        For each start the new ids of the finished texts, without the token that ended them, the best first.

    Raises:
        TorchloomError: The model's outputs are not finite.

    Source: Wu et al. 2016, arXiv:1609.08144, section 7; scores and end as in Hugging Face transformers.
    """
    beams, batch = request.num_beams, len(starts)
    if not request.max_new_tokens:
        return [[[]] for _ in range(batch)]
    tokens = starts.repeat_interleave(beams, dim=0)
    # All begin alike, so only the first goes on.
    held: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(batch)]
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    for length in range(1, request.max_new_tokens + 1):
        logits = penalise_repetition(_finite(predict(tokens)), tokens, request.repetition_penalty)
        scores = torch.full((batch, beams), -torch.inf, dtype=logits.dtype)
        for number, candidates in enumerate(held):
            scores[number, : len(candidates)] = torch.tensor([score for score, _ in candidates], dtype=logits.dtype)
        chances = logits.log_softmax(dim=-1).view(batch, beams, -1) + scores[:, :, None]
        vocab = chances.shape[2]
        # So many that those which are held would be left if all others ended here.
        best = chances.flatten(1).topk(min((1 + max(1, len(ends))) * beams, beams * vocab))
        rows = torch.arange(batch * beams).view(batch, beams)
        new = torch.zeros(batch, beams, dtype=torch.int64)
        for number, before in enumerate(held):
            if not before:
                continue
            going: list[tuple[float, list[int]]] = []
            for rank, (score, place) in enumerate(
                zip(best.values[number].tolist(), best.indices[number].tolist(), strict=True)
            ):
                if score == -torch.inf:
                    break
                row, token = divmod(place, vocab)
                ids = [*before[row][1], token]
                last = token in ends or length == request.max_new_tokens
                if last or (endings and endings[number].reached(ids)):
                    if rank < beams:
                        finished[number].append((score / length**request.length_penalty, ids))
                elif len(going) < beams:
                    rows[number, len(going)] = number * beams + row
                    new[number, len(going)] = token
                    going.append((score, ids))
            finished[number] = sorted(finished[number], key=lambda one: -one[0])[:beams]
            full = len(finished[number]) == beams
            over = full and going and going[0][0] / length**request.length_penalty <= finished[number][-1][0]
            held[number] = [] if over else going
        if not any(held):
            break
        predict.reorder(rows.flatten())
        tokens = torch.cat((tokens[rows.flatten()], new.view(-1, 1)), dim=1)
    return [[ids[:-1] if ids[-1] in ends else ids for _, ids in candidates] for candidates in finished]


def in_order(found: Sequence[list[list[int]]], endings: Sequence[Ending], request: GenerateRequest) -> list[str]:
    """Return the texts that a search found, in the order of the samples: the best of each start, then the second best."""
    texts = []
    for number, ending in enumerate(endings):
        best = found[number % len(found)]
        texts.append(ending.text(best[min(number // len(found), len(best) - 1)]))
    if request.on_token is not None:
        request.on_token(texts[0])
    return texts


def _finite(logits: Tensor) -> Tensor:
    if not math.isfinite(logits.sum().item()):  # one operator, where torch's test of each number is six
        raise TorchloomError("the model's outputs are not finite, so nothing can be generated: training diverged")
    return logits


class Ending:
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

    def reorder(self, rows: Tensor) -> None:
        """Let row ``i`` go on from what row ``rows[i]`` was, ``(batch,)``."""
        reorder(self.state, rows.to(self.device))

    def _begin(self, length: int) -> int:
        """Return the first token that is seen of a text: a full context forgets its oldest half, and so on each time."""
        forgotten = self.context_length + 1 - (self.context_length + 1) // 2
        return forgotten * -(-max(length - self.context_length, 0) // forgotten)


def reorder(state: Any, rows: Tensor) -> None:
    """Put the rows of an architecture's state in other places; None is none.

    Raises:
        UnsupportedError: It cannot.
    """
    if state is None:
        return
    if not hasattr(state, "reorder"):
        raise UnsupportedError("this network's state cannot follow a beam search; generate with cache=false")
    state.reorder(rows)


def _choose(logits: Tensor, request: GenerateRequest, generators: list[torch.Generator]) -> Tensor:
    """Return one token id a row, ``(batch,)``."""
    if request.temperature == 0:
        return logits.argmax(dim=-1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / request.temperature
    probability = filter_logits(logits, request.top_k, request.top_p).softmax(dim=-1)
    # As `torch.multinomial` draws, but for all rows at once, each with its own source of randomness.
    noise = torch.empty_like(probability)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return (probability / noise).argmax(dim=-1)


def _generators(count: int, source: torch.Generator | None) -> list[torch.Generator]:
    seeds = torch.randint(2**63 - 1, (count,), generator=source)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def check(request: GenerateRequest, prompts: int) -> None:
    """Refuse what is out of its range.

    Args:
        request: What to make.
        prompts: How many there are.

    Raises:
        ConfigError: Something is.
    """
    most = request.num_beams * prompts
    wrong = [
        Problem(name, f"{value} is out of range", f"give {allowed}")
        for name, value, good, allowed in (
            ("num_samples", request.num_samples, request.num_samples >= 1, "at least 1"),
            ("max_new_tokens", request.max_new_tokens, request.max_new_tokens >= 0, "at least 0"),
            ("temperature", request.temperature, request.temperature >= 0, "at least 0; 0 is greedy"),
            ("top_k", request.top_k, request.top_k is None or request.top_k >= 1, "at least 1, or leave it out"),
            ("repetition_penalty", request.repetition_penalty, request.repetition_penalty > 0, "above 0; 1 is none"),
            ("num_beams", request.num_beams, request.num_beams >= 1, "at least 1, which searches not"),
            (
                "num_samples",
                request.num_samples,
                request.num_beams <= 1 or request.num_samples <= most,
                f"at most {most} of {request.num_beams} beams",
            ),
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


class Stream:
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
