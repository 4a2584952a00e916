"""`TranslationData`: corpora in, training and evaluation batches out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from polylect.data.batch import EvaluationBatches, Example, make_examples, pad_id
from polylect.data.corpus import corpora
from polylect.data.filters import HashSet, PairFilter, check_filters, hold_out
from polylect.data.languages import split_direction
from polylect.data.prompt import template as template_named
from polylect.data.reading import read_pairs
from polylect.data.store import Pair, PairStore
from polylect.data.stream import Mixing, TrainingStream

log = logging.getLogger(__name__)

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
        train, val, test: a corpus spec (see `polylect.data.corpus`) for all directions, or a
            mapping from direction or "*" to specs; None if there is none.
        tokenizer: a Hugging Face tokenizer; may be set later as the attribute, before batches are
            asked for.
        template: a name in `polylect.data.prompt.TEMPLATES`.
        mixing: "mixed" batches hold several directions, "by_direction" batches one each.
        tokens_per_batch: bound on rows times longest row, padding included.
        max_rows: bound on rows.
        max_length: examples with more tokens, prompt and target, are left out and counted.
        temperature: directions are drawn in proportion to `pairs ** (1 / temperature)`.
        filters: for training pairs, by name: see `polylect.data.filters.PairFilter`.
        seed: decides the order of the training examples.
        num_workers: threads that tokenise ahead of training; 0 to tokenise in the loop.
        root: folder that relative paths start from.

    Attributes:
        report: after `setup`, by split and direction: pairs read, kept, and dropped by each filter,
            the hash of those kept, and (val, test) how many are too long for the loss.
        stream: the training batches last asked for; its `report` has what was drawn.

    Raises:
        ValueError: a bad argument, in one sentence; files are opened by `setup` only.
    """

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
        root: str | None = None,
    ) -> None:
        super().__init__()
        self.directions = self.check_directions(directions)
        for name, value, least in (
            ("tokens_per_batch", tokens_per_batch, 1),
            ("max_rows", max_rows, 1),
            ("max_length", max_length, 2),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
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
        self.tokenizer = tokenizer
        self.template = template_named(template)
        self.mixing = mixing
        self.tokens_per_batch, self.max_rows = tokens_per_batch, max_rows
        self.max_length = max_length
        self.temperature, self.seed, self.num_workers = temperature, seed, num_workers
        self.filters = check_filters(filters or {})
        values = {"train": train, "val": val, "test": test}
        self._corpora = {
            split: corpora(split, value, self.directions, root) for split, value in values.items()
        }
        self._stores: dict[str, dict[str, PairStore]] = {}
        self.report: dict[str, dict[str, dict[str, Any]]] = {}
        self.stream: TrainingStream | None = None

    def check_directions(self, directions: Sequence[str]) -> tuple[str, ...]:
        """The directions; raises ValueError where one is none."""
        return _checked_directions(directions)

    def setup(self, stage: str | None = None) -> None:
        """Read and filter what the stage ("fit", "validate", "test"; None: all) needs, once.

        Without val corpora the trainer's validation is switched off.

        Raises:
            FileNotFoundError, ValueError: one sentence with file and line.
        """
        splits = _SPLITS_OF_STAGE[stage]
        if "train" in splits and "overlap" in self.filters:
            splits = _SPLITS_OF_STAGE[None]
        for split in splits:
            if split not in self._stores:
                self._read(split)
        if stage == "fit" and not self._corpora["val"] and self.trainer is not None:
            log.info("no val corpora: there is no validation during training")
            self.trainer.limit_val_batches = 0

    def teardown(self, stage: str | None = None) -> None:
        """Log what was drawn for training."""
        if stage != "fit" or self.stream is None:
            return
        drawn = self.stream.report()
        for direction in self.directions:
            log.info(
                "drawn %s: %d examples (%.1f %%, wanted %.1f %%), %d target tokens, %d too long",
                direction,
                drawn["examples"][direction],
                100 * drawn["share"][direction],
                100 * drawn["wanted_share"][direction],
                drawn["target_tokens"][direction],
                drawn["too_long"][direction],
            )
        log.info("%d batches, %.1f %% padding", drawn["batches"], 100 * drawn["padding"])

    def directions_of(self, split: Split) -> tuple[str, ...]:
        """The directions that have a corpus in this split; the order of its loaders."""
        return tuple(self._corpora[split])

    def pairs(self, direction: str, split: Split) -> PairStore:
        """The pairs of a direction after filtering, in their order.

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

    def examples(self, direction: str, split: Split, limit: int | None = None) -> list[Example]:
        """The first `limit` pairs of a direction as token ids, in their order, of any length."""
        pairs = self._first(direction, split, limit)
        return make_examples(pairs, [direction] * len(pairs), self._tokenizer(), self.template)

    def prompts(self, direction: str, split: Split, limit: int | None = None) -> list[Example]:
        """As `examples`, with empty targets, to generate from. Long prompts are left whole."""
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
        """The training batches of this process: one epoch is the whole run.

        Raises:
            ValueError: the trainer has no `max_steps`.
        """
        trainer = self.trainer
        if trainer is None or trainer.max_steps < 1:
            raise ValueError(
                "training is counted in steps: set trainer.max_steps to at least 1 "
                "(and leave trainer.max_epochs alone)"
            )
        length = trainer.max_steps * trainer.accumulate_grad_batches
        return self.training_stream(length, trainer.global_rank, trainer.world_size)

    def training_stream(self, length: int, rank: int = 0, world: int = 1) -> TrainingStream:
        """`length` training batches for process `rank` of `world`, without a trainer."""
        stores = {direction: self.pairs(direction, "train") for direction in self.directions}
        self.stream = TrainingStream(
            stores=stores,
            tokenizer=self._tokenizer(),
            template=self.template,
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
        """Validation batches by direction, in the order of `directions_of("val")`."""
        return self._evaluation_batches("val")

    def test_dataloader(self) -> list[EvaluationBatches]:
        """Test batches by direction, in the order of `directions_of("test")`."""
        return self._evaluation_batches("test")

    def _evaluation_batches(self, split: Split) -> list[EvaluationBatches]:
        loaders = []
        for direction in self.directions_of(split):
            examples = self.examples(direction, split)
            fitting = [example for example in examples if example.length <= self.max_length]
            too_long = len(examples) - len(fitting)
            self.report[split][direction]["too_long"] = too_long
            if not fitting:
                raise ValueError(
                    f"all {too_long} {split} examples of {direction!r} have more than "
                    f"data.max_length={self.max_length} tokens"
                )
            if too_long:
                log.warning(
                    "%s %s: %d of %d examples have more than %d tokens and are not in the loss",
                    *(split, direction, too_long, len(examples), self.max_length),
                )
            pad = pad_id(self._tokenizer())
            loaders.append(EvaluationBatches(fitting, self.tokens_per_batch, self.max_rows, pad))
        return loaders

    def _read(self, split: Split) -> None:
        held_out = HashSet()
        if split == "train" and "overlap" in self.filters:
            for name in ("val", "test"):
                for direction, store in self._stores[name].items():
                    hold_out((store[i] for i in range(len(store))), direction, held_out)
        self._stores[split], self.report[split] = {}, {}
        for direction, parts in self._corpora[split].items():
            keep = PairFilter(self.filters, direction, held_out) if split == "train" else None
            store, report = read_pairs(parts, keep)
            self._stores[split][direction] = store
            self.report[split][direction] = report
            dropped = ", ".join(f"{name} {n}" for name, n in report["dropped"].items())
            log.info(
                "%s %s: %d pairs of %d read%s",
                *(split, direction, report["kept"], report["read"]),
                f"; dropped: {dropped}" if dropped else "",
            )

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError("data.tokenizer is not set: give it the tokenizer of the base model")
        return self.tokenizer


def _checked_directions(directions: Sequence[str]) -> tuple[str, ...]:
    if isinstance(directions, str) or not directions:
        raise ValueError(
            f"data.directions must be a list such as [en-de, en-ta], got {directions!r}"
        )
    for direction in directions:
        if not isinstance(direction, str):
            raise ValueError(
                f"data.directions has {direction!r}, which is no text; "
                "YAML reads no, on and yes as truth values: quote them"
            )
        split_direction(direction)
    if len(set(directions)) < len(directions):
        raise ValueError(f"data.directions names a direction twice: {', '.join(directions)}")
    return tuple(directions)
