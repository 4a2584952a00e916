"""Selects the entries of a vocabulary that text needs: by count, by coverage or up to a size."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from polylect.data.languages import language, script_share
from polylect.data.prompt import TEMPLATES, template
from polylect.models.vocabulary.tokens import Vocabulary

_BATCH = 10_000


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts as prompts and targets hold them: without special tokens."""
    if not texts:
        return []
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Counter[int]:
    """Return how often each id occurs in texts,
    their beginnings counted with a space before them too.

    Within a prompt a text follows a space, and then its first word is another token.
    """
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        beginnings = [" " + " ".join(text.split(" ", 2)[:2]) for text in part]
        for ids in (*encode(tokenizer, part), *encode(tokenizer, beginnings)):
            counts.update(ids)
    return counts


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, directions: Iterable[str], own: str | None = None
) -> set[int]:
    """Return the ids in the prompts of the directions,
    with every template that the tokenizer can serve.

    Args:
        own: the template that is going to be used; another's needs are met where they can be.

    Raises ValueError where the tokenizer lacks what `own` needs.
    """
    ids: set[int] = set()
    for name in dict.fromkeys([*TEMPLATES, *([own] if own else [])]):
        for direction in directions:
            source = "a" if "-" in direction else None
            try:
                ids.update(*template(name).encode_many(tokenizer, [source], [direction]))
                ids.update(template(name).encode_target(tokenizer, "a", direction))
            except ValueError:
                if name == own:
                    raise
    return ids


def script_tokens(vocabulary: Vocabulary, languages: Iterable[str]) -> set[int]:
    """Return the ids of the tokens whose letters are all of the scripts of these languages.

    Raises ValueError for an unknown code.
    """
    scripts = tuple(sorted({script for code in languages for script in language(code).scripts}))
    if not scripts:
        return set()
    return {
        index
        for token, index in vocabulary.ids.items()
        if (text := vocabulary.text(token)) and script_share(text, scripts) == 1.0
    }


def frequent_tokens(
    counts: Counter[int],
    vocabulary: Vocabulary,
    required_ids: Collection[int],
    *,
    count: int | None = None,
    coverage: float | None = None,
    size: int | None = None,
) -> set[int]:
    """Return ids to keep: `required_ids`, others by one of three rules, and those on their way.

    Args:
        count: those that occur at least so often.
        coverage: as few as make up this share of all occurrences, of 1.
        size: as many as fit into so many entries in all.

    Raises:
        ValueError: a size that has no room for what is always kept.
    """
    kept_ids = vocabulary.closure(required_ids)
    ranking = [index for index, _ in counts.most_common()]
    if coverage is not None:
        sums = accumulate(counts[index] for index in ranking)
        threshold = coverage * counts.total()
        ranking = ranking[: 1 + sum(total < threshold for total in sums)]
    elif count is not None:
        ranking = [index for index in ranking if counts[index] >= count]
    if size is None:
        return kept_ids | vocabulary.closure(ranking)
    if len(kept_ids) > size:
        raise ValueError(
            f"size={size} is less than the {len(kept_ids)} entries that are always kept: special "
            "tokens, bytes, digits, marks, what prompts need and what the languages ask for."
        )
    for index in ranking:
        path = vocabulary.closure([index]) - kept_ids
        if len(kept_ids) + len(path) > size:
            break
        kept_ids |= path
    return kept_ids
