"""`QuestionData`: what adapters of tasks and of articles learn from, and what they are asked."""

from collections.abc import Sequence

from polylect.data.batch import Example
from polylect.data.datamodule import Split, TranslationData
from polylect.data.facts import Facts
from polylect.data.kilt import Kilt, Question
from polylect.data.store import Pair, PairStore
from polylect.did_you_mean import check_known

PARTS = ("knowledge", "task")


Source = Facts | Kilt


def adapter_of(article: str) -> str:
    """Return the name of the adapter that knows an article."""
    return f"article_{article}"


class QuestionData(TranslationData):
    """Training data of a library of adapters; what are directions elsewhere are adapters here.

    Args:
        source: of articles and questions.
        part: "knowledge" (an adapter for each article learns its text) or "task" (an adapter for
            each task learns to answer questions on other articles).
        directions: some of these adapters; None for all.
        template, …: as for `TranslationData`.

    Raises:
        ValueError: an unknown part or adapter.
    """

    has_languages = False

    def __init__(
        self,
        *,
        source: Source,
        part: str = "knowledge",
        directions: Sequence[str] | None = None,
        template: str = "question",
        tokens_per_batch: int = 4096,
        max_rows: int = 256,
        max_length: int = 256,
        mixing: str = "mixed",
        temperature: float | int = 1.0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        check_known("data.part", part, PARTS)
        self.source, self.part = source, part
        super().__init__(
            directions=self._units() if directions is None else directions,
            template=template,
            tokens_per_batch=tokens_per_batch,
            max_rows=max_rows,
            max_length=max_length,
            mixing=mixing,
            temperature=temperature,
            seed=seed,
            num_workers=num_workers,
        )
        self._corpora["train"] = {direction: [] for direction in self.directions}

    def check_directions(self, directions: Sequence[str]) -> tuple[str, ...]:
        return tuple(directions)

    def questions(self, limit: int | None = None) -> list[Question]:
        """Return the first so many questions of each data set, data set by data set."""
        by_set: dict[str, list[Question]] = {name: [] for name in self.source.data_sets}
        for question in self.source.questions():
            if limit is None or len(by_set[question.data_set]) < limit:
                by_set[question.data_set].append(question)
        return [question for questions in by_set.values() for question in questions]

    def ask(self, questions: Sequence[Question]) -> list[Example]:
        """Return prompts; each has as direction its task and the article whose adapter is named."""
        directions = [self.direction(question) for question in questions]
        sources = [question.source for question in questions]
        prompts = self.template.encode_many(self._tokenizer(), sources, directions)
        rows = zip(prompts, directions, questions, strict=True)
        return [Example(ids, [], d, question.text, question.answers) for ids, d, question in rows]

    def direction(self, question: Question) -> str:
        """Return the name under which the adapters that serve a question are known."""
        return f"{self.source.data_sets[question.data_set].task}.{question.article}"

    def adapters_by_direction(self, questions: Sequence[Question]) -> dict[str, dict[str, str]]:
        """Return by direction the right adapter in the library "task" and in "knowledge"."""
        adapters = {}
        for question in questions:
            adapters[self.direction(question)] = {
                "task": self.source.data_sets[question.data_set].task
            }
            if question.article:
                adapters[self.direction(question)]["knowledge"] = adapter_of(question.article)
        return adapters

    def _units(self) -> list[str]:
        if self.part == "task":
            return list(self.source.tasks)
        return [adapter_of(article) for article in self.source.articles]

    def _read(self, split: Split) -> None:
        self._stores[split], self.report[split] = {}, {}
        if split != "train":
            return
        units = self._units()
        for unit in self.directions:
            check_known("data.directions", unit, units)
            store = PairStore(self._pairs(unit))
            if not len(store):
                raise ValueError(f"there is nothing that {unit} could be learnt from")
            self._stores[split][unit] = store
            counts = {"read": len(store), "kept": len(store), "dropped": {}}
            self.report[split][unit] = {
                **counts,
                "sha256": store.sha256,
                "corpora": [{"corpus": self.part, **counts}],
            }

    def _pairs(self, unit: str) -> list[Pair]:
        if self.part == "knowledge":
            return [Pair(None, text) for text in self.source.texts(unit.removeprefix("article_"))]
        return [Pair(q.source, q.answers[0]) for q in self.source.lessons(unit)]
