"""Properties of texts before any filter: scripts, repetitions, overlap with what is scored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from polylect.data.filters import HashSet, normalise, text_hash
from polylect.data.languages import UNSPACED, language, script_of, split_direction

_MASK = 2**64 - 1


@dataclass
class Side:
    """The texts of one side of a direction, counted one by one.

    Attributes:
        code: of the language.
        characters: how often each one occurs.
        words: of all texts, as white space parts them.
    """

    code: str
    characters: Counter[str] = field(default_factory=Counter)
    words: int = 0

    def add(self, text: str) -> None:
        """Count a text."""
        self.characters.update(text)
        self.words += len(text.split())

    def report(self) -> dict[str, Any]:
        """Return words, characters, and shares of letters by script, the largest first."""
        scripts: Counter[str] = Counter()
        for character, count in self.characters.items():
            if script := script_of(character):
                scripts[script] += count
        letters = scripts.total()
        expected = language(self.code).scripts
        right = sum(scripts[name] for name in expected) if expected else letters
        return {
            "language": self.code,
            "words": self.words,
            "characters": self.characters.total(),
            "scripts": {name: count / letters for name, count in scripts.most_common()},
            "own_script": right / letters if letters else 1.0,
        }


class Texts:
    """The pairs of one direction and split, counted one by one.

    Args:
        held_out: by split ("val", "test") the hashes of its texts, see `filters.hold_out`.
        repetitions: whether repeated texts are counted, which takes memory for each.
    """

    def __init__(
        self, direction: str, held_out: dict[str, HashSet], repetitions: bool = True
    ) -> None:
        source, target = split_direction(direction)
        codes = {"source": source, "target": target}
        self._sides = {side: Side(code) for side, code in codes.items() if code is not None}
        self._held_out = held_out
        self._pairs = 0
        kinds = ("exact", "normalised", "source", "target") if repetitions else ()
        self._seen = {name: HashSet() for name in kinds}
        self._repeated = dict.fromkeys(self._seen, 0)
        self._overlap = dict.fromkeys(held_out, 0)

    def add(self, source: str | None, target: str) -> None:
        """Count a pair."""
        self._pairs += 1
        texts = {"source": source, "target": target}
        for side, counted in self._sides.items():
            counted.add(texts[side] or "")
        if self._seen:
            self._count_repetitions(source, target)
        hashes = [
            text_hash(counted.code, texts[side] or "") for side, counted in self._sides.items()
        ]
        for split, held_out in self._held_out.items():
            self._overlap[split] += any(key in held_out for key in hashes)

    def _count_repetitions(self, source: str | None, target: str) -> None:
        keys = {
            "exact": (source, target),
            "normalised": (source and normalise(source), normalise(target)),
            "source": source,
            "target": target,
        }
        for name, key in keys.items():
            if key is not None and not self._seen[name].add(hash((name, key)) & _MASK):
                self._repeated[name] += 1

    def report(self) -> dict[str, Any]:
        """Counts of the texts as read.

        - duplicates: pairs that were there before, to the letter ("exact") and but for case and
          punctuation ("normalised"); pairs whose source or target was there before; empty if
          repetitions are not counted
        - overlap: pairs of which a side is in the val or test set of any direction
        - source, target: see `Side.report`
        """
        return {
            "pairs": self._pairs,
            "duplicates": self._repeated,
            "overlap": self._overlap,
            **{side: counted.report() for side, counted in self._sides.items()},
        }


def fertility(tokenizer: Any, texts: Iterable[str], code: str) -> dict[str, Any]:
    """Return how many tokens a tokenizer makes of texts in a language, special tokens left out.

    `per_word` is None for scripts that do not part words by spaces; `unknown` is the share of
    tokens that stand for what the tokenizer cannot write.
    """
    texts = list(texts)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    tokens = sum(map(len, ids))
    words = sum(len(text.split()) for text in texts)
    characters = sum(map(len, texts))
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    parted = not UNSPACED & set(language(code).scripts)
    return {
        "texts": len(texts),
        "tokens": tokens,
        "per_word": tokens / words if words and parted else None,
        "per_character": tokens / characters if characters else None,
        "unknown": unknown / tokens if tokens and tokenizer.unk_token_id is not None else 0.0,
    }
