"""Scores of short answers as KILT counts them (arXiv 2009.02252), and their share of an oracle's.

One prediction against the gold answers of its question, of which the best counts. Which task
takes which, in arXiv 2507.05346: F1 for chat, accuracy for fact checking, entity linking and slot
filling, exact match for question answering.
"""

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from polylect.did_you_mean import did_you_mean

_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = frozenset({"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sk"})


def normalise(text: str) -> str:
    """Return lower case without punctuation and English articles, one space between words.

    For ASCII the answer normalisation of SQuAD, which KILT uses. Beyond it, punctuation of all
    scripts goes (and no combining mark), and one text in two Unicode forms becomes one.
    Punctuation leaves no gap: "well-known" becomes "wellknown".
    """
    folded = unicodedata.normalize("NFKC", _strip_punctuation(text)).casefold()
    # Folding can bring in punctuation ("⑴" is "(1)") and decomposed letters.
    bare = unicodedata.normalize("NFKC", _strip_punctuation(folded))
    return " ".join(word for word in bare.split() if word not in _ARTICLES)


def _strip_punctuation(text: str) -> str:
    """Return the text without punctuation, and without lone accents typed for apostrophes."""
    return "".join(
        char
        for char in text
        if char not in string.punctuation and unicodedata.category(char) not in _PUNCTUATION
    )


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is one of the answers, but for outer spaces, else 0."""
    return _best(lambda ours, gold: float(ours.strip() == gold.strip()), prediction, answers)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is one of the answers after `normalise`, else 0."""
    return _best(lambda ours, gold: float(normalise(ours) == normalise(gold)), prediction, answers)


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of the normalised words, 0 to 1.

    Words are what stands between spaces, so a script without spaces has one word per answer.
    """
    return _best(_f1, prediction, answers)


def _f1(prediction: str, answer: str) -> float:
    ours, gold = normalise(prediction).split(), normalise(answer).split()
    shared = (Counter(ours) & Counter(gold)).total()
    return 2 * shared / (len(ours) + len(gold)) if shared else 0.0


def _best(metric: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    if isinstance(answers, str) or not answers:
        raise ValueError(
            f"the gold answers to score {prediction!r} against are {answers!r}: give a sequence of "
            "at least one string"
        )
    return max(metric(prediction, answer) for answer in answers)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "token_f1": token_f1,
}


def answer_score(
    metric: str, predictions: Sequence[str], answers: Sequence[Sequence[str]]
) -> float:
    """Return the mean of a metric over all questions, 0 to 100.

    Args:
        metric: key of METRICS.
        predictions: one per question.
        answers: the gold answers of each question, at least one.

    Raises:
        ValueError: unknown metric, no question, unequal lengths, a question without an answer.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r} of answers: {did_you_mean(metric, METRICS)}")
    if not predictions or len(predictions) != len(answers):
        raise ValueError(
            f"{len(predictions)} predictions cannot be scored against the answers of "
            f"{len(answers)} questions: give one for each, and at least one"
        )
    values = map(METRICS[metric], predictions, answers)
    return 100 * sum(values) / len(predictions)


def oracle_share(
    scores: Mapping[str, float | int],
    oracle: Mapping[str, float | int],
    sizes: Mapping[str, int] | None = None,
) -> float:
    """Return the normalised score of arXiv 2507.05346:
    how much of the oracle's score is reached, in %.

    The mean over the data sets of a task of score / oracle's score, weighted with their sizes. It
    can exceed 100. Over several tasks the paper takes the plain mean of the tasks' shares.

    Args:
        scores: of a system, by data set.
        oracle: of the right adapter for every query, by data set.
        sizes: examples in each data set; by default all count the same.

    Raises:
        ValueError: no data set, one lacks the oracle's score or a size, or these are not positive.
    """
    if not scores:
        raise ValueError("there is no data set of which to take the share of the oracle")
    weights = dict.fromkeys(scores, 1) if sizes is None else sizes
    for name in scores:
        for what, table in (("score of the oracle", oracle), ("size", weights)):
            if table.get(name, 0) <= 0:
                raise ValueError(f"data set {name!r} needs a positive {what}")
    total = sum(weights[name] for name in scores)
    return 100 * sum(weights[name] / total * scores[name] / oracle[name] for name in scores)
