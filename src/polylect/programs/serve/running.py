"""The batch that is being decoded."""

from collections.abc import Sequence

from polylect.data.batch import Example
from polylect.programs.serve.jobs import Row
from polylect.programs.serve.usage import Usage, usages
from polylect.run.text_settings import adapters_used
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding.translation import Translation


class Running:
    """Rows that are decoded together, and how far they are.

    Attributes:
        rows: by their number in the batch; the list that was given, which grows.
        adapters: the name of each row's adapter, as in `Answer`.
        translations: of those that have ended.
        open: the numbers of those that have not been answered.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.adapters: list[str | None] = []
        self.translations: dict[int, Translation] = {}
        self.open = set(range(len(rows)))

    def add(self, rows: Sequence[Row]) -> list[tuple[int, Example]]:
        """Take rows that join; returns their numbers and prompts."""
        numbers = range(len(self.rows), len(self.rows) + len(rows))
        self.rows.extend(rows)
        self.open.update(numbers)
        return [(number, row.prompt) for number, row in zip(numbers, rows, strict=True)]

    def name_adapters(self, module: TranslationModule) -> None:
        """Note which adapters the rows have that came last."""
        new = self.rows[len(self.adapters) :]
        self.adapters += adapters_used(module, [row.prompt for row in new])

    def usages(self, module: TranslationModule) -> dict[int, Usage | None]:
        """Return what wrote those translations of which it was asked for."""
        asked = [index for index in sorted(self.open) if self.rows[index].job.wants_usage]
        if not asked:
            return {}
        prompts = [self.rows[index].prompt for index in asked]
        with module.context.lock():
            found = usages(module, prompts, [self.translations[index].text for index in asked])
        return dict(zip(asked, found, strict=True))

    def left(self) -> list[Row]:
        """Return the rows that have not been answered."""
        return [self.rows[number] for number in sorted(self.open)]
