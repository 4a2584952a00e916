"""Made articles: each tells a few facts on somebody, in words that the embedded base knows.

KILT in small. The facts are drawn at random, so that nobody can know the answer to a question who
has not read the article; and articles beyond those that are asked about teach how to answer.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from polylect.data.kilt import DataSet, Question
from polylect.tongues.concepts import KINDS

NOUNS = {
    kind: sorted(noun for noun, own in KINDS.items() if own == kind)
    for kind in sorted(set(KINDS.values()))
}
_PEOPLE = ["good", "brave", "happy", "rich", "poor", "lazy", "strong", "hungry"]
_ANIMALS = ["white", "black", "big", "small", "beautiful", "lazy", "strong", "hungry"]


@dataclass(frozen=True)
class Relation:
    """What can be told of somebody: verb in two forms, what leads to the value, its kind."""

    base: str
    third: str
    lead: str
    kind: str
    word: str  # that asks for it


RELATIONS = (
    Relation("sleep", "sleeps", "in the", "place", "where"),
    Relation("seek", "seeks", "the", "thing", "what"),
    Relation("steal", "steals", "the", "food", "what"),
    Relation("wake", "wakes", "the", "person", "whom"),
    Relation("see", "sees", "the", "animal", "what"),
)

_STATEMENTS = (
    "The {who} {third} {lead} {value}.",
    "The story says that the {who} {third} {lead} {value}.",
    "Every day the {who} {third} {lead} {value}.",
)
_QUESTIONS = ("{Word} does the {who} {base}?", "Say {word} the {who} {third}.")
_SLOT = "the {who} [SEP] {base}"


class Facts:
    """So many articles with a fact for each relation, and questions on them.

    The answer is the sentence that tells the fact. No two articles are about the same kind of
    creature.

    Args:
        size: articles that are asked about.
        seed: decides who they are about, and the facts.

    Raises:
        ValueError: no article, or more than there are kinds of creatures.
    """

    def __init__(self, *, size: int = 24, seed: int = 1) -> None:
        most = len(NOUNS["person"]) + len(NOUNS["animal"])
        if not 1 <= size <= most:
            raise ValueError(f"data.source.size must be from 1 to {most} articles, got {size}.")
        self.size, self.seed = size, seed
        self.data_sets = {
            "facts": DataSet("question_answering", "exact_match"),
            "slots": DataSet("slot_filling", "accuracy"),
        }
        self.tasks = [data_set.task for data_set in self.data_sets.values()]

    @property
    def articles(self) -> list[str]:
        """The ids of the articles."""
        return [f"{number:02}" for number in range(self.size)]

    def texts(self, article: str) -> list[str]:
        """Return every fact of an article in every form of words."""
        return [form.format(**fact) for fact in self._facts[article] for form in _STATEMENTS]

    def lessons(self, task: str) -> list[Question]:
        """Return questions on articles that are not asked about, to learn a task from."""
        others = [article for article in self._facts if article not in self.articles]
        return [q for q in self._questions(others) if self.data_sets[q.data_set].task == task]

    def questions(self) -> list[Question]:
        """Return each fact in every form of question, and as a slot to fill."""
        return list(self._questions(self.articles))

    def _questions(self, articles: list[str]) -> Iterator[Question]:
        forms = [*(("facts", form) for form in _QUESTIONS), ("slots", _SLOT)]
        for data_set, form in forms:
            for article in articles:
                for fact in self._facts[article]:
                    name = f"{article} {fact['base']} {form}"
                    answer = (_STATEMENTS[0].format(**fact),)
                    yield Question(name, data_set, form.format(**fact), answer, (article,))

    @cached_property
    def _facts(self) -> dict[str, list[dict[str, str]]]:
        """Return the facts of each article; the articles asked about come first."""
        random_ = random.Random(self.seed)
        creatures = [
            (noun, adjective)
            for kind, adjectives in (("person", _PEOPLE), ("animal", _ANIMALS))
            for noun in NOUNS[kind]
            for adjective in adjectives
        ]
        random_.shuffle(creatures)
        first = list({noun: (noun, adjective) for noun, adjective in creatures}.values())
        subjects = first[: self.size]
        others = [creature for creature in creatures if creature not in subjects]
        return {
            f"{number:02}": [_fact(random_, f"{adjective} {noun}", noun, r) for r in RELATIONS]
            for number, (noun, adjective) in enumerate([*subjects, *others])
        }


def _fact(random_: random.Random, who: str, noun: str, relation: Relation) -> dict[str, str]:
    value = random_.choice([other for other in NOUNS[relation.kind] if other != noun])
    return {
        "who": who,
        "base": relation.base,
        "third": relation.third,
        "lead": relation.lead,
        "value": value,
        "word": relation.word,
        "Word": relation.word.capitalize(),
    }
