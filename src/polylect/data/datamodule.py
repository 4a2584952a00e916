"""`TranslationData`: corpora in, training and evaluation batches out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from polylect.data.batch import Example, pad_id
from polylect.data.cache.reading import Reports, Stores, read_evaluation, read_training
from polylect.data.cache.token_cache import CachedPairs, TokenCache, cores
from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.rows import Row
from polylect.data.filters import SCORED, check_filters
from polylect.data.languages import check_distinct_directions
from polylect.data.prompt import Template
from polylect.data.prompt import template as template_named
from polylect.data.store import Pair, PairStore
from polylect.data.stream import (
    EvaluationBatches,
    Mixing,
    TrainingStream,
    fitting_examples,
    make_examples,
)
from polylect.models.context import UNLIMITED, context_of

Split = Literal["train", "val", "test"]
_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {
    None: ("val", "test", "train"),
    "fit": ("val", "train"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}


class TranslationData(LightningDataModule):
    """Training, validation and test pairs of many directions.

    Args:
        directions: such as "en-ta", or "ta" for monolingual text.
        train, val, test: a corpus spec (see `polylect.data.corpora.corpus`) for all directions, or
            a mapping from direction or "*" to specs; None if there is none.
        tokenizer: a Hugging Face tokenizer; may be set later as the attribute, before batches are
            asked for.
        template: a name in `polylect.data.prompt.TEMPLATES`; chat templates may have a date in it.
        mixing: "mixed" batches hold several directions, "by_direction" batches one each.
        tokens_per_batch: bound on rows times longest row, padding included.
        max_rows: bound on rows.
        max_length: examples with more tokens, prompt and target, are left out and counted; at most
            what the base model takes.
        temperature: directions are drawn in proportion to `pairs ** (1 / temperature)`.
        filters: for training pairs, by name: see `polylect.data.filters.PairFilter`.
        seed: decides the order of the training examples.
        num_workers: threads that tokenise ahead of training; 0 to tokenise in the loop.
        cache: folder in which training pairs and their tokens are kept, see `polylect.data.cache`.
        processes: that tokenise for it; None for one on each core.
        root: folder that relative paths start from.
        check_sides: refuse corpora whose sides are clearly swapped, where their specs do not say
            it themselves; see `polylect.data.corpora.sides`.

    Attributes:
        context: of the base model, once `set_backbone` was called.
        lessons: the template of what is learned, where it is another than `template`.
        report: after `setup`, by split and direction, and for each of its corpora: pairs read,
            kept, and dropped by each filter, the hash of those kept; `audit.counts` adds the rest.
        has_languages: whether directions name languages.
        stream: the training batches last asked for; its `report` has what was drawn.

    Raises:
        ValueError: a bad argument, in one sentence; files are opened by `setup` only.
    """

    has_languages = True

    def __init__(
        self,
        *,
        directions: Sequence[str],
        train: Any = None,
        val: Any = None,
        test: Any = None,
        tokenizer: Any = None,
        template: str = "plain",
        mixing: str = "mixed",
        tokens_per_batch: int = 4096,
        max_rows: int = 256,
        max_length: int = 256,
        temperature: float | int = 1.0,
        filters: Mapping[str, Any] | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache: str | None = None,
        processes: int | None = None,
        root: str | None = None,
        check_sides: bool = True,
    ) -> None:
        super().__init__()
        self.directions = self.check_directions(directions)
        for name, value, least in (
            ("tokens_per_batch", tokens_per_batch, 1),
            ("max_rows", max_rows, 1),
            ("max_length", max_length, 2),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
            ("processes", 1 if processes is None else processes, 1),
        ):
            if value < least:
                raise ValueError(f"data.{name} must be at least {least}, got {value}")
        if max_length > tokens_per_batch:
            raise ValueError(
                f"data.max_length ({max_length}) is above data.tokens_per_batch "
                f"({tokens_per_batch}): an example of that length would fit into no batch"
            )
        if not temperature > 0:
            raise ValueError(f"data.temperature must be above 0, got {temperature}")
        if mixing not in get_args(Mixing):
            raise ValueError(f"data.mixing must be mixed or by_direction, got {mixing!r}")
        self.tokenizer, self.context = tokenizer, UNLIMITED
        self.template = template_named(template)
        self.lessons: Template | None = None
        self.mixing, self.max_length = mixing, max_length
        self.tokens_per_batch, self.max_rows = tokens_per_batch, max_rows
        self.temperature, self.seed, self.num_workers = temperature, seed, num_workers
        self.cache, self.processes = cache, processes
        self.filters = check_filters(filters or {})
        values = {"train": train, "val": val, "test": test}
        self._corpora = {
            split: corpora(split, value, self.directions, root, check_sides)
            for split, value in values.items()
        }
        self._stores: dict[str, Stores] = {}
        self.report: dict[str, Reports] = {}
        self.stream: TrainingStream | None = None

    def check_directions(self, directions: Sequence[str]) -> tuple[str, ...]:
        """Return the directions; raises ValueError where one is none."""
        if isinstance(directions, str | Mapping) or not directions:
            raise ValueError(
                f"data.directions must be a list such as [en-de, en-ta], got {directions!r}"
            )
        check_distinct_directions(directions)
        return tuple(directions)

    def set_backbone(self, backbone: Any, tokenizer: Any) -> None:
        """Take the tokenizer and the context of the base model."""
        self.tokenizer, self.context = tokenizer, context_of(backbone.config)

    def check_context(self) -> None:
        """Raises ValueError where `max_length` lets examples through that the model cannot take."""
        if self.max_length > self.context.length:
            raise ValueError(
                f"data.max_length={self.max_length} is more than the {self.context.length} tokens "
                f"that the base model takes: set data.max_length={self.context.length}, and longer "
                "examples are left out and counted"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read and filter what the stage ("fit", "validate", "test"; None: all) needs, once.

        Without val corpora the trainer's validation is switched off.

        Raises:
            FileNotFoundError, ValueError: one sentence with file and line.
        """
        splits = _SPLITS_OF_STAGE[stage]
        if "train" in splits and SCORED & self.filters.keys():
            splits = _SPLITS_OF_STAGE[None]
        for split in splits:
            if split not in self._stores:
                self._read(split)
        if stage == "fit" and not self._corpora["val"] and self.trainer is not None:
            self.trainer.limit_val_batches = 0

    def directions_of(self, split: Split) -> tuple[str, ...]:
        """Return the directions that have a corpus in this split; the order of its loaders."""
        return tuple(self._corpora[split])

    def pairs(self, direction: str, split: Split) -> PairStore | CachedPairs:
        """Return the pairs of a direction after filtering, in their order.

        Raises:
            ValueError: there are none, or `setup` has not run.
        """
        store = self._stores.get(split, {}).get(direction)
        if store is None:
            raise ValueError(
                f"there is no {split} corpus of direction {direction!r}"
                if split in self._stores
                else f"data.setup has not read the {split} corpora yet"
            )
        return store

    def read(self, direction: str, split: Split) -> Iterator[Row]:
        """Yield the rows of a direction as its corpora have them, before any filter.

        Reads them again.
        """
        for corpus in self._corpora[split][direction]:
            yield from corpus.rows()

    def examples(self, direction: str, split: Split, limit: int | None = None) -> list[Example]:
        """Return the first `limit` pairs of a direction as token ids, of any length."""
        pairs = self._first(direction, split, limit)
        template = self.lessons or self.template
        return make_examples(pairs, [direction] * len(pairs), self._tokenizer(), template)

    def prompts(self, direction: str, split: Split, limit: int | None = None) -> list[Example]:
        """Return `examples` with empty targets, to generate from. Long prompts are left whole."""
        pairs = self._first(direction, split, limit)
        sources = [pair.source for pair in pairs]
        ids = self.template.encode_many(self._tokenizer(), sources, [direction] * len(pairs))
        return [
            Example(prompt, [], direction, pair.source or "", pair.references or (pair.target,))
            for prompt, pair in zip(ids, pairs, strict=True)
        ]

    def _first(self, direction: str, split: Split, limit: int | None) -> list[Pair]:
        store = self.pairs(direction, split)
        return [store[i] for i in range(len(store))[:limit]]

    def train_dataloader(self) -> TrainingStream:
        """Return the training batches of this process: one epoch is the whole run.

        Raises:
            ValueError: the trainer has no `max_steps`.
        """
        trainer = self.trainer
        if trainer is None or trainer.max_steps < 1:
            raise ValueError("training is counted in steps: set trainer.max_steps to at least 1")
        length = trainer.max_steps * trainer.accumulate_grad_batches
        return self.training_stream(length, trainer.global_rank, trainer.world_size)

    def training_stream(self, length: int, rank: int = 0, world: int = 1) -> TrainingStream:
        """Return `length` training batches for process `rank` of `world`, without a trainer.

        Raises ValueError as `check_context` does.
        """
        self.check_context()
        stores = {direction: self.pairs(direction, "train") for direction in self.directions}
        self.stream = TrainingStream(
            stores=stores,
            tokenizer=self._tokenizer(),
            template=self.lessons or self.template,
            length=length,
            tokens_per_batch=self.tokens_per_batch,
            max_rows=self.max_rows,
            max_length=self.max_length,
            temperature=self.temperature,
            mixing=self.mixing,
            seed=self.seed,
            num_workers=self.num_workers,
            rank=rank,
            world=world,
        )
        return self.stream

    def val_dataloader(self) -> list[EvaluationBatches]:
        """Return validation batches by direction, in the order of `directions_of("val")`."""
        return self._evaluation_batches("val")

    def test_dataloader(self) -> list[EvaluationBatches]:
        """Return test batches by direction, in the order of `directions_of("test")`."""
        return self._evaluation_batches("test")

    def _evaluation_batches(self, split: Split) -> list[EvaluationBatches]:
        self.check_context()
        loaders = []
        for direction in self.directions_of(split):
            examples = self.examples(direction, split)
            fitting = fitting_examples(
                examples, self.max_length, f"{split} examples of {direction!r}"
            )
            self.report[split][direction]["too_long"] = len(examples) - len(fitting)
            pad = pad_id(self._tokenizer())
            loaders.append(EvaluationBatches(fitting, self.tokens_per_batch, self.max_rows, pad))
        return loaders

    def _read(self, split: Split) -> None:
        corpora = self._corpora[split]
        if split == "train":
            scored = [self._stores[s] for s in ("val", "test") if SCORED & self.filters.keys()]
            read = read_training(corpora, self.filters, scored, self._token_cache())
        else:
            read = read_evaluation(corpora)
        self._stores[split], self.report[split] = read

    def _token_cache(self) -> TokenCache | None:
        if self.cache is None or self.tokenizer is None:  # as in a dry run without a tokenizer
            return None
        processes = self.processes or cores()
        return TokenCache(Path(self.cache).expanduser(), self.tokenizer, self.template, processes)

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError("data.tokenizer is not set: give it the tokenizer of the base model")
        return self.tokenizer
