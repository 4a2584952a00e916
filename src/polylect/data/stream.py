"""Batches from pairs: the endless, resumable sequence of training, and that of a test set."""

import copy
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.cache.token_cache import CachedPairs
from polylect.data.prompt import Template
from polylect.data.sampler import BATCHES, LARGEST_POOL, POOL, PoolSampler, cut, cut_batches
from polylect.data.store import Pair, PairStore

log = logging.getLogger(__name__)

Mixing = Literal["mixed", "by_direction"]
_COUNTED = ("examples", "target_tokens", "too_long", "tokens")


def make_examples(
    pairs: Sequence[Pair], directions: Sequence[str], tokenizer: Any, template: Template
) -> list[Example]:
    """Return examples of pairs, one direction for each, by two calls of the tokenizer."""
    sources, targets = [pair.source for pair in pairs], [pair.target for pair in pairs]
    encoded = template.encode_pairs(tokenizer, sources, targets, directions)
    return [
        Example(prompt, target, direction, pair.source or "", pair.references or (pair.target,))
        for (prompt, target), direction, pair in zip(encoded, directions, pairs, strict=True)
    ]


@dataclass(frozen=True)
class Pool:
    """Examples of one draw, the batches they are cut into, and the directions of those dropped."""

    number: int
    examples: list[Example]
    batches: list[np.ndarray]
    too_long: list[str]


class TrainingStream:
    """The training batches of one process, as an iterable that knows where it is.

    There is one sequence of batches for a seed, whatever the number of processes: process `rank`
    of `world` takes every `world`-th, and `state_dict` is the same in all of them. It counts the
    batches handed out, so it must be saved when the last of them has been trained on, as Lightning
    does. An iterator goes on from where the stream is; it ends with the run's `length` batches,
    and the next one begins another run's length.

    Args:
        stores: pairs by direction, none empty; those of a cache are tokenised already.
        length: number of batches that `len` gives, for this process.
        tokens_per_batch: bound on rows times the longest row, padding included.
        max_length: longer examples (prompt and target) are dropped and counted.
        temperature: see `sampler.probabilities`.
        mixing: whether a batch mixes directions or holds one.
        num_workers: threads that tokenise pools ahead, each with a copy of the tokenizer; 0 to
            tokenise in the loop.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, PairStore | CachedPairs],
        tokenizer: Any,
        template: Template,
        length: int,
        tokens_per_batch: int,
        max_rows: int,
        max_length: int,
        temperature: float | int = 1.0,
        mixing: Mixing = "mixed",
        seed: int = 0,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._stores = list(stores.values())
        self._directions = list(stores)
        self._tokenizer, self._template = tokenizer, template
        self._length = length
        self._tokens_per_batch, self._max_rows = tokens_per_batch, max_rows
        self._max_length, self._mixing, self._seed = max_length, mixing, seed
        self._num_workers, self._rank, self._world = num_workers, rank, world
        # An example has tens of tokens, so a pool of this size gives tens of batches per group.
        groups = len(stores) if mixing == "by_direction" else 1
        size = min(max(POOL, tokens_per_batch) * groups, LARGEST_POOL)
        sizes = [len(store) for store in self._stores]
        self._sampler = PoolSampler(sizes, temperature, seed, size)
        self._settings = {
            "seed": seed,
            "temperature": float(temperature),
            "mixing": mixing,
            "template": type(template).__name__,
            "tokens_per_batch": tokens_per_batch,
            "max_rows": max_rows,
            "max_length": max_length,
            "data": {direction: store.sha256 for direction, store in stores.items()},
        }
        self._next = (0, 0)  # pool, batch within it
        self._batches_given = 0
        self._counts = {name: Counter[str]() for name in _COUNTED}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[TranslationBatch]:
        sequence = self._sequence()
        end = (self._batches_given // self._length + 1) * self._length
        while self._batches_given < end:
            step = [next(sequence) for _ in range(self._world)]
            for pool, batch in step:
                self._count(pool, batch)
            self._next = (step[-1][0].number, step[-1][1] + 1)
            self._batches_given += 1
            pool, batch = step[self._rank]
            examples = [pool.examples[i] for i in pool.batches[batch]]
            yield collate(examples, pad_id(self._tokenizer), "right")

    def batches_per_pass(self) -> float:
        """About how many batches, of all processes, draw as many examples as there are.

        What the first draw gives; exact where that is a pass.
        """
        pool = self._pool(0, self._sampler.pool(0), self._tokenizer)
        return len(pool.batches) * sum(map(len, self._stores)) / self._sampler.size

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is and what it has counted; plain numbers, strings and dicts."""
        return {
            "pool": self._next[0],
            "batch": self._next[1],
            "given": self._batches_given,
            "counts": {name: dict(counter) for name, counter in self._counts.items()},
            "settings": self._settings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream of this state was.

        Raises:
            ValueError: that stream was made from other data or with other settings.
        """
        saved = state["settings"]
        differ = [name for name in self._settings if saved.get(name) != self._settings[name]]
        if differ:
            raise ValueError(
                f"cannot go on with the batches of the checkpoint: data.{', data.'.join(differ)} "
                "changed since; resume with the same settings, or start a new run from its weights"
            )
        self._next = (state["pool"], state["batch"])
        self._batches_given = state["given"]
        self._counts = {name: Counter(state["counts"][name]) for name in _COUNTED}

    def report(self) -> dict[str, Any]:
        """Return what has been handed out since the run began, by all processes.

        - examples, target_tokens, too_long: counts by direction
        - share: of the examples, by direction; wanted_share: what the temperature asks for
        - tokens: of sources and targets, without padding
        - padding: share of padding in all tokens
        """
        examples = self._counts["examples"]
        draws = examples + self._counts["too_long"]
        total = max(draws.total(), 1)
        tokens = self._counts["tokens"]
        counts = {
            name: {direction: self._counts[name][direction] for direction in self._directions}
            for name in ("examples", "target_tokens", "too_long")
        }
        return counts | {
            "batches": self._batches_given * self._world,
            "share": {direction: draws[direction] / total for direction in self._directions},
            "wanted_share": dict(zip(self._directions, self._sampler.shares.tolist(), strict=True)),
            "tokens": tokens["real"],
            "padding": 1 - tokens["real"] / tokens["padded"] if tokens["padded"] else 0.0,
        }

    def _count(self, pool: Pool, batch: int) -> None:
        examples = [pool.examples[i] for i in pool.batches[batch]]
        lengths = [example.length for example in examples]
        self._counts["tokens"].update(real=sum(lengths), padded=max(lengths) * len(lengths))
        for example in examples:
            self._counts["examples"][example.direction] += 1
            self._counts["target_tokens"][example.direction] += example.target_tokens
        if batch == 0:
            self._counts["too_long"].update(pool.too_long)

    def _sequence(self) -> Iterator[tuple[Pool, int]]:
        """Yield every batch from the next one on, without end, as a pool and a number in it."""
        number, first = self._next
        for pool in self._pools(number):
            for batch in range(first, len(pool.batches)):
                yield pool, batch
            first = 0

    def _pools(self, first: int) -> Iterator[Pool]:
        if not self._num_workers:
            for number in count(first):
                yield self._pool(number, self._sampler.pool(number), self._tokenizer)
        # A tokenizer cannot be used by two threads at once, and the caller is one of them.
        copies = [copy.deepcopy(self._tokenizer) for _ in range(self._num_workers)]
        with ThreadPoolExecutor(self._num_workers) as threads:

            def submit(number: int) -> Future[Pool]:
                draws = self._sampler.pool(number)
                return threads.submit(self._pool, number, draws, copies[number % len(copies)])

            later = first + self._num_workers
            ahead = deque(submit(number) for number in range(first, later))
            for number in count(later):
                # This pool is done, so its copy of the tokenizer is free for the one submitted.
                pool = ahead.popleft().result()
                ahead.append(submit(number))
                yield pool

    def _pool(self, number: int, draws: tuple[np.ndarray, np.ndarray], tokenizer: Any) -> Pool:
        examples = self._examples(*draws, tokenizer)
        fitting = [example for example in examples if example.length <= self._max_length]
        too_long = [e.direction for e in examples if e.length > self._max_length]
        if not fitting:
            shortest = min(example.length for example in examples)
            raise ValueError(
                f"data.max_length={self._max_length} is too small: all {len(examples)} examples "
                f"drawn are longer, the shortest has {shortest} tokens"
            )
        index = {direction: i for i, direction in enumerate(self._directions)}
        directions = np.array([index[example.direction] for example in fitting])
        batches = cut_batches(
            np.array([example.length for example in fitting]),
            directions if self._mixing == "by_direction" else np.zeros_like(directions),
            self._tokens_per_batch,
            self._max_rows,
            np.random.default_rng([self._seed, BATCHES, number]),
        )
        # Rows of one direction side by side: layers that route rows work on whole runs of them.
        batches = [batch[np.argsort(directions[batch], kind="stable")] for batch in batches]
        return Pool(number, fitting, batches, too_long)

    def _examples(self, groups: np.ndarray, rows: np.ndarray, tokenizer: Any) -> list[Example]:
        if all(isinstance(store, CachedPairs) for store in self._stores):
            parts = [s.examples(rows[groups == d].tolist()) for d, s in enumerate(self._stores)]
            return [example for part in parts for example in part]
        pairs = [self._stores[d][r] for d, r in zip(groups.tolist(), rows.tolist(), strict=True)]
        directions = [self._directions[d] for d in groups.tolist()]
        return make_examples(pairs, directions, tokenizer, self._template)


def fitting_examples(examples: Sequence[Example], max_length: int, name: str) -> list[Example]:
    """Return the examples of at most so many tokens; warns of the others.

    Args:
        name: what they are, as in "val examples of 'en-de'".

    Raises:
        ValueError: all are longer.
    """
    fitting = [example for example in examples if example.length <= max_length]
    too_long = len(examples) - len(fitting)
    if not fitting:
        raise ValueError(
            f"all {too_long} {name} have more than data.max_length={max_length} tokens"
        )
    if too_long:
        log.warning(
            "%d of %d %s have more than %d tokens and are not in the loss",
            *(too_long, len(examples), name, max_length),
        )
    return fitting


class EvaluationBatches:
    """The batches of one direction in a fixed order, the longest first.

    Not a DataLoader: Lightning would give one a distributed sampler, which repeats examples to
    fill up, and the losses of two processes would not be those of one. Every process sees all.
    """

    def __init__(
        self, examples: Sequence[Example], tokens_per_batch: int, max_rows: int, pad: int
    ) -> None:
        self._examples, self._pad = examples, pad
        lengths = np.array([example.length for example in examples])
        order = np.argsort(-lengths, kind="stable")
        self._batches = cut(order, lengths, tokens_per_batch, max_rows)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[TranslationBatch]:
        for batch in self._batches:
            yield collate([self._examples[i] for i in batch], self._pad, "right")
