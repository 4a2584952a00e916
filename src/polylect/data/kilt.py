"""Questions on the pages of Wikipedia from local files in KILT's format (arXiv 2009.02252).

JSON lines {"id", "input", "output": [{"answer", "provenance": [{"wikipedia_id", …}]}]}. An output
may have an answer, provenance, or both.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from polylect.data.corpora.lines import text_lines
from polylect.data.corpora.records import parse_json
from polylect.data.text import clean_lines, one_line
from polylect.did_you_mean import did_you_mean


class DataSet(NamedTuple):
    """What kind of task a data set is, and the metric it is scored with: see `eval.answers`."""

    task: str
    metric: str


DATA_SETS = {
    "wow": DataSet("chat", "token_f1"),
    "fever": DataSet("fact_checking", "accuracy"),
    "aidayago2": DataSet("entity_linking", "accuracy"),
    "cweb": DataSet("entity_linking", "accuracy"),
    "wned": DataSet("entity_linking", "accuracy"),
    "structured_zeroshot": DataSet("slot_filling", "accuracy"),
    "trex": DataSet("slot_filling", "accuracy"),
    "nq": DataSet("question_answering", "exact_match"),
    "hotpotqa": DataSet("question_answering", "exact_match"),
    "triviaqa": DataSet("question_answering", "exact_match"),
}
"""KILT's names, but for ELI5, which is scored by other means; metrics as in arXiv 2507.05346."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what is known of the answer.

    Attributes:
        articles: ids of the pages that the answer is grounded in, in order of mention.
        passage: text that the prompt shows before the question; none by default.
        named: the article whose adapter is named for this question; by default the first of
            `articles`, the right one.
    """

    id: str
    data_set: str
    text: str
    answers: tuple[str, ...]
    articles: tuple[str, ...] = ()
    passage: str = ""
    named: str = ""

    @property
    def source(self) -> str:
        """What the prompt holds: the question, with the passage on lines of its own before it."""
        return f"{self.passage}\n{self.text}" if self.passage else self.text

    @property
    def article(self) -> str:
        """The article whose adapter is named; empty where none is known."""
        return self.named or next(iter(self.articles), "")


def read_kilt(path: str | Path, data_set: str) -> Iterator[Question]:
    """Yield the questions of a file, plain or gzip, in its order.

    Questions and answers are cleaned, see `polylect.data.text`; a question keeps its lines.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: with file and line: no JSON object, a field that is missing or of another kind,
            or no gold answer.
    """
    path = Path(path)
    for number, line in enumerate(text_lines(path), 1):
        where = f"{path}:{number}"
        entry = parse_json(line, where)
        try:
            yield _question(entry, data_set)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _question(entry: Any, data_set: str) -> Question:
    if not isinstance(entry, dict):
        raise ValueError("a line must be a JSON object.")
    number, text = entry.get("id"), entry.get("input")
    if not isinstance(number, str | int):
        raise ValueError("'id' must be a text or a number.")
    if not isinstance(text, str) or not clean_lines(text):
        raise ValueError("'input' must be a text that is not empty.")
    outputs = entry.get("output")
    if not _objects(outputs):
        raise ValueError(
            "'output' must be a list of objects with gold answers; KILT's test files have none: "
            "take train or dev."
        )
    answers = [o["answer"] for o in outputs if o.get("answer") is not None]
    if not answers or not all(isinstance(a, str) and one_line(a) for a in answers):
        raise ValueError("'output' must have at least one 'answer', and none that is empty.")
    pages = [
        str(page["wikipedia_id"])
        for output in outputs
        for page in _provenance(output)
        if page.get("wikipedia_id") is not None
    ]
    unique = (tuple(dict.fromkeys(texts)) for texts in (map(one_line, answers), pages))
    return Question(str(number), data_set, clean_lines(text), *unique)


def _provenance(output: dict[str, Any]) -> list[dict[str, Any]]:
    pages = output.get("provenance") or []
    if not _objects(pages):
        raise ValueError("'provenance' must be a list of objects.")
    return pages


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def top_articles(questions: Sequence[Question], count: int) -> list[str]:
    """Return the ids of the pages that most questions are grounded in, the most frequent first."""
    counts = Counter(page for question in questions for page in question.articles)
    return sorted(counts, key=lambda page: (-counts[page], page))[:count]


class Kilt:
    """Questions of KILT on some articles, the others to learn the tasks from, the articles' texts.

    Args:
        files: data set (a key of DATA_SETS) to its file, or to several.
        texts: folder with `<wikipedia_id>.txt` for each article: a passage a line, the page's own
            and what was rewritten of it.
        articles: how many, those that most questions are grounded in; or a list of their ids.
        root: folder that relative paths start from.

    Raises:
        ValueError: an unknown data set, or no article; files are opened when they are needed.
    """

    def __init__(
        self,
        *,
        files: Mapping[str, Any],
        texts: str,
        articles: int | Sequence[str | int] = 1000,
        root: str | None = None,
    ) -> None:
        for name in files:
            if name not in DATA_SETS:
                raise ValueError(
                    f"data.source.files: unknown data set {name}; {did_you_mean(name, DATA_SETS)}"
                )
        if not files or not articles or (isinstance(articles, int) and articles < 1):
            raise ValueError(
                "data.source needs files of at least one data set and at least one article."
            )
        folder = Path(root).expanduser() if root else Path()
        listed = {
            name: [paths] if isinstance(paths, str) else list(paths)
            for name, paths in files.items()
        }
        self._files = {name: [folder / path for path in paths] for name, paths in listed.items()}
        self._folder = folder / texts
        self._articles = articles
        self.data_sets = {name: DATA_SETS[name] for name in files}
        self.tasks = list(dict.fromkeys(data_set.task for data_set in self.data_sets.values()))

    @cached_property
    def articles(self) -> list[str]:
        """The ids of the articles."""
        if isinstance(self._articles, int):
            return top_articles(self._all, self._articles)
        return [str(article) for article in self._articles]

    def texts(self, article: str) -> list[str]:
        """Return the passages of an article."""
        path = self._folder / f"{article}.txt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: article {article} needs its passages there, one a line."
            )
        return list(filter(None, map(one_line, text_lines(path))))

    def lessons(self, task: str) -> list[Question]:
        """Return the questions that are grounded in other articles, to learn a task from."""
        return [
            question
            for question in self._all
            if self.data_sets[question.data_set].task == task
            and not self._article_set.intersection(question.articles)
        ]

    def questions(self) -> list[Question]:
        """Return the questions that are grounded in the articles.

        Of these the first is the right one.
        """
        return [
            question for question in map(self._with_own_articles, self._all) if question.articles
        ]

    def _with_own_articles(self, question: Question) -> Question:
        pages = tuple(page for page in question.articles if page in self._article_set)
        return replace(question, articles=pages)

    @cached_property
    def _article_set(self) -> frozenset[str]:
        return frozenset(self.articles)

    @cached_property
    def _all(self) -> list[Question]:
        paths = [path for paths in self._files.values() for path in paths]
        if missing := [path for path in paths if not path.is_file()]:
            raise FileNotFoundError(
                "\n".join(
                    f"{path} does not exist: it should be a file of KILT." for path in missing
                )
            )
        return [
            question
            for name, paths in self._files.items()
            for path in paths
            for question in read_kilt(path, name)
        ]
