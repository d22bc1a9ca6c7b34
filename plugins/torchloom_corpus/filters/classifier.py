"""A linear classifier of good and bad text, learnt from the user's own samples."""

from __future__ import annotations

import math
from functools import lru_cache

from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import QualityClassifierConfig
from torchloom_corpus.filters.samples import EXCERPT, Samples, hold_out

__all__ = ["QualityClassifier"]

LEAST = 50
"""Fewest samples of each kind to learn from."""
FEATURES = 1 << 18
"""Features that words, marks and pairs of them are hashed to."""


class QualityClassifier(CorpusStep):
    """Drops documents that are more like the bad samples; notes the probability of being good as ``quality``.

    Logistic regression over hashed words, marks of punctuation, and pairs of them. It learns from four samples in five,
    and how it judges the fifth is counted. It reads as much of a document as of a sample: the first 5,000 characters.

    Args:
        config: The samples and the threshold.

    Raises:
        ConfigError: No samples are given.
        DataError: There is no such file or folder.

    Source: Brown et al., "Language Models are Few-Shot Learners" (arXiv:2005.14165), appendix A.
    """

    config: QualityClassifierConfig

    def __init__(self, config: QualityClassifierConfig) -> None:
        super().__init__(config)
        self._samples()

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Learn from the samples; each task does, and all arrive at the same.

        Raises:
            DataError: The samples cannot be read, or are too few.
        """
        super().start(tally, rank, world)
        self._model, goods, bads = _learn(*self._samples(), self.config.max_samples)
        if rank == 0:
            least = self.config.min_score
            tally.count("good samples held out", len(goods))
            tally.count("good samples held out and let through", sum(score >= least for score in goods))
            tally.count("bad samples held out", len(bads))
            tally.count("bad samples held out and dropped", sum(score < least for score in bads))

    def process(self, document: Document) -> str | None:
        """Compare its score with the threshold."""
        score = self._model.score(document.text[:EXCERPT])
        document.metadata["quality"] = score
        return "classified as bad" if score < self.config.min_score else None

    def _samples(self) -> tuple[Samples, Samples]:
        place = "steps.quality_classifier"
        return Samples.at(self.config.good, f"{place}.good"), Samples.at(self.config.bad, f"{place}.bad")


class _Classifier:
    """What scikit-learn has learnt, applied to one text at a time without its checks, which take most of that time."""

    def __init__(self, goods: list[str], bads: list[str]) -> None:
        self._features = HashingVectorizer(
            n_features=FEATURES, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", alternate_sign=False
        )
        # neither kind is favoured for having more samples; liblinear's result depends on no number of threads
        model = LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear", random_state=0)
        model.fit(self._features.transform([*goods, *bads]), [1] * len(goods) + [0] * len(bads))
        self._weights, self._bias = model.coef_[0], model.intercept_[0]

    def score(self, text: str) -> float:
        """Return the probability of being good, to six digits, so that machines that sum in another order agree."""
        found = self._features.transform([text])
        odds = self._weights[found.indices] @ found.data + self._bias
        return round(0.5 + 0.5 * math.tanh(odds / 2), 6)  # the logistic function, which cannot overflow like this


@lru_cache(maxsize=2)
def _learn(good: Samples, bad: Samples, most: int) -> tuple[_Classifier, tuple[float, ...], tuple[float, ...]]:
    goods, goods_held_out = hold_out(good.read(LEAST, most))
    bads, bads_held_out = hold_out(bad.read(LEAST, most))
    model = _Classifier(goods, bads)
    return model, tuple(map(model.score, goods_held_out)), tuple(map(model.score, bads_held_out))
