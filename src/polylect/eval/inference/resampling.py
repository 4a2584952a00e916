"""Corpus scores of resampled lines, the same lines for all systems."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000


def resampled_scores(
    metric: Any,
    outputs: Sequence[Sequence[str]],
    streams: Sequence[Sequence[str | None]],
    samples: int = RESAMPLES,
) -> np.ndarray:
    """Return the score of every system on every resample of the lines.

    The draws are the same for all systems, whose scores go up and down together; seeded with
    sacreBLEU's SACREBLEU_SEED, 12345 by default.

    Args:
        metric: of sacreBLEU.
        outputs: of each system, a translation for each line.
        streams: references, as `polylect.eval.metrics.reference_streams` has them.

    Returns:
        Scores, of shape (systems, samples).
    """
    statistics = [
        np.array(metric._extract_corpus_statistics(list(lines), streams), dtype=np.float64)
        for lines in outputs
    ]
    seed = os.environ.get("SACREBLEU_SEED", "12345")  # as sacreBLEU reads it
    random = np.random.default_rng(None if seed.lower() == "none" else int(seed))
    scores = np.empty((len(outputs), samples))
    for i in range(samples):
        drawn = random.integers(len(outputs[0]), size=len(outputs[0]))
        for system, of_lines in enumerate(statistics):
            scores[system, i] = metric._compute_score_from_stats(of_lines[drawn].sum(0)).score
    return scores
