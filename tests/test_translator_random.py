"""Random operations on one translator against what each adapter says alone."""

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch

from polylect.library import Adapter, AdapterLibrary, base_fingerprint
from polylect.models.backbone import tiny_backbone
from polylect.strategies.generation import Generation
from polylect.strategies.lora_switch import LoRASwitch
from polylect.translator import Translator

SERVED = {"a": "en-de", "b": "en-de", "c": "en-fr", "d": "en-fr", "e": "en-hi"}
DIRECTIONS = ("en-de", "en-fr", "en-hi")
TEXTS = ("We read.", "The small cat sees the old house.")
BASE = ""
REFUSALS = (
    r"no adapter is named '\w'; (did you mean|known:) .*",
    r"an adapter named '\w' is there already: give another name\.",
    r"adapter '\w' is not loaded; loaded: \[.*\]",
    r"no adapter serves direction en-\w\w; (did you mean|known:) .*",
    r"give a direction: no adapter is set or named that serves one\.",
    r"a batch needs \d adapters of \d+ bytes together, the budget is \d+: raise it or .*",
    r".* is not a PEFT adapter: it lacks adapter_config\.json\.",  # while it is being replaced
    r".* (has no|lacks) adapter_\w+\.\w+",
    r".* is no adapter folder: it has no adapter_config\.json, copy or download the whole folder",
    # Of folders that change while they are read there is more to say; never in the system's words.
    r"(?!\[Errno)[^\n]*(adapter|lora_|directions)[^\n]*",
    r".*/(adapter_\w+|polylect)\.\w+ (does not exist|cannot be read: No such file or directory)\.",
)


@cache
def variants() -> list[Adapter]:
    """Adapters of several ranks, targets and scalings, all far from zero."""
    results = []
    for number, targets in enumerate([["down_proj"], ["down_proj", "q_proj"], "all", "ffn"] * 2):
        torch.manual_seed(10 + number)
        module = LoRASwitch(
            directions=["en-de"], template="tag", rank=1 + number % 3, targets=targets
        )
        module.set_backbone(*tiny_backbone(hidden=16))
        for parameter in module.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=1.5)
        layers = {n: m for n, m in module.backbone.named_modules() if hasattr(m, "lora_a")}
        results.append(Adapter.of_layers(layers, "en-de"))
    return results


def translator(budget_mib: float = 1024) -> Translator:
    """It says the ids of the tokens, which tell more than the bytes that they stand for."""
    model, tokenizer = tiny_backbone(hidden=16)
    tokenizer.decode = lambda ids, **_: " ".join(map(str, ids))
    settings = {"template": "tag", "generation": Generation(limit=4), "device": "cpu"}
    return Translator.from_base(model, tokenizer, budget_mib=budget_mib, **settings)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int | str, str, str], str]:
    """What each variant alone, and the base, makes of each text in each direction."""
    library, actual = AdapterLibrary(tmp_path_factory.mktemp("oracle")), {}
    asked = [(d, text) for d in DIRECTIONS for text in TEXTS]
    for number, adapter in [*enumerate(variants()), (BASE, None)]:
        t, name = translator(), BASE
        if adapter is not None:
            library.save(f"v{number}", adapter)
            name = t.load_adapter(library.path / f"v{number}")
        translated = t.translate([text for _, text in asked], [d for d, _ in asked], name)
        actual |= {(number, *pair): text for pair, text in zip(asked, translated, strict=True)}
    for pair in asked:
        assert len({actual[n, *pair] for n in [*range(len(variants())), BASE]}) == 9, pair
    return actual


class Disk:
    """Folders that are replaced, and which versions each may have had meanwhile."""

    def __init__(self, path: Path) -> None:
        self.library = AdapterLibrary(path)
        self.begun: dict[str, list[int]] = {name: [] for name in SERVED}
        self.done = Counter[str]()
        self._locks = {name: threading.Lock() for name in SERVED}
        for number, name in enumerate(SERVED):
            self.replace(name, number)

    def replace(self, name: str, number: int) -> None:
        with self._locks[name]:
            self.begun[name].append(number)
            adapter = Adapter(variants()[number].modules, {"directions": [SERVED[name]]})
            self.library.save(name, adapter, overwrite=True)
            self.done[name] += 1

    def since(self, done: Counter[str], name: str) -> list[int]:
        """The versions that there were from then on."""
        return self.begun[name][done[name] - 1 :]


class Caller:
    """Does random things with a translator, and holds what it says against the oracle."""

    def __init__(self, t: Translator, disk: Disk, oracle: dict, seed: int) -> None:
        self.t, self.disk, self.oracle = t, disk, oracle
        self.dice = random.Random(seed)
        self.counts = Counter[str]()
        self.wrong: list[str] = []
        self.stop = threading.Event()

    def run(self, operations: int) -> None:
        acts = {
            self.translate_named: 8, self.translate_direction: 4, self.translate_set: 4,
            self.load: 6, self.unload: 2, self.set: 3, self.evict: 3, self.replace: 4,
        }  # fmt: skip
        for act in self.dice.choices(list(acts), list(acts.values()), k=operations):
            try:
                act()
                self.counts[act.__name__] += 1
            except (ValueError, FileNotFoundError) as error:
                self.counts["refused"] += 1
                if not any(re.fullmatch(form, str(error)) for form in REFUSALS):
                    self.wrong.append(f"{act.__name__}: {error}")
            except Exception as error:
                self.wrong.append(f"{act.__name__}: {error!r}")

    def name(self) -> str:
        return self.dice.choice(list(SERVED))

    def load(self) -> None:
        name = self.name()
        self.t.load_adapter(self.disk.library.path / name)

    def unload(self) -> None:
        self.t.unload_adapter(self.name())

    def evict(self) -> None:
        self.t.module.unload(self.name())

    def set(self) -> None:
        self.t.set_adapter(self.dice.choice([*SERVED, None]))

    def replace(self) -> None:
        self.disk.replace(self.name(), self.dice.randrange(len(variants())))

    def translate_named(self) -> None:
        rows = self.dice.randrange(1, 4)
        names = [self.dice.choice([*SERVED, BASE]) for _ in range(rows)]
        directions = [self.dice.choice(DIRECTIONS) for _ in range(rows)]
        self.check(directions, names, [[name] for name in names])

    def translate_direction(self) -> None:
        self.check([self.dice.choice(DIRECTIONS)], None, [self.may_serve])

    def translate_set(self) -> None:
        self.check(None, None, [self.may_serve])

    def may_serve(self, direction: str) -> Sequence[str]:
        """With other callers about, any adapter may be set."""
        return list(SERVED)

    def check(
        self,
        directions: list[str] | None,
        names: list[str] | None,
        allowed: list[Sequence[str] | Callable[[str], Sequence[str]]],
    ) -> None:
        texts = [self.dice.choice(TEXTS) for _ in allowed]
        done = Counter(self.disk.done)
        translations = self.t.translate(texts, directions, names)
        for row, (text, translated, who) in enumerate(
            zip(texts, translations, allowed, strict=True)
        ):
            possible = set()
            for direction in [directions[row]] if directions else DIRECTIONS:
                for name in who(direction) if callable(who) else who:
                    versions = [BASE] if name == BASE else self.disk.since(done, name)
                    possible |= {self.oracle[v, direction, text] for v in versions}
            if translated not in possible:
                self.wrong.append(
                    f"{translated!r} for {text!r}, {directions}, {names}: not {possible}"
                )


class Only(Caller):
    """The only caller, who knows which adapters are there and which one is set."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.there: list[str] = []
        self.chosen: str | None = None

    def load(self) -> None:
        name = self.name()
        self.t.load_adapter(self.disk.library.path / name)
        assert name not in self.there
        self.there.append(name)

    def unload(self) -> None:
        name = self.name()
        self.t.unload_adapter(name)
        self.there.remove(name)
        self.chosen = None if self.chosen == name else self.chosen

    def set(self) -> None:
        name = self.dice.choice([*SERVED, None])
        self.t.set_adapter(name)
        assert name is None or name in self.there
        self.chosen = name

    def may_serve(self, direction: str) -> Sequence[str]:
        if self.chosen:
            return [self.chosen]
        return [name for name in self.there if SERVED[name] == direction][:1]


def budget() -> float:
    """In MiB; three adapters fit nearly always, and five seldom do."""
    sizes = sorted(adapter.nbytes for adapter in variants())
    return sum(sizes[-3:]) / 2**20


def check_end(t: Translator, disk: Disk, oracle: dict, before: str, callers: list[Caller]) -> None:
    wrong = [sentence for caller in callers for sentence in caller.wrong]
    assert not wrong, f"{len(wrong)} are wrong, such as:\n" + "\n".join(wrong[:5])
    t.set_adapter(None)
    assert t.fingerprint() == before == base_fingerprint(tiny_backbone(hidden=16)[0])
    assert t.translate([TEXTS[0]], "en-de", BASE) == [oracle[BASE, "en-de", TEXTS[0]]]
    for name in t.adapters:
        translated = t.translate([TEXTS[1]], "en-fr", name)
        assert translated == [oracle[disk.begun[name][-1], "en-fr", TEXTS[1]]]
    store = t.module.store
    assert min(store.loads, store.hits, store.evictions) > 0
    assert store.bytes <= t.module.budget_bytes
    for name in t.adapters:
        t.unload_adapter(name)
    assert (store.bytes, store.resident) == (0, ())


def operate(oracle: dict, path: Path, operations: int, kinds: Sequence[type[Caller]]) -> Counter:
    t, disk = translator(budget()), Disk(path)
    before = t.fingerprint()
    callers = [kind(t, disk, oracle, seed) for seed, kind in enumerate(kinds)]
    share = -(-operations // len(callers))
    threads = [threading.Thread(target=caller.run, args=(share,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_end(t, disk, oracle, before, callers)
    return sum((caller.counts for caller in callers), Counter())


def test_one_caller_gets_what_it_asks_for(oracle: dict, tmp_path: Path) -> None:
    counts = operate(oracle, tmp_path, 400, [Only])
    assert min(counts.values()) > 3, counts


def test_callers_in_three_threads_get_what_they_ask_for(oracle: dict, tmp_path: Path) -> None:
    counts = operate(oracle, tmp_path, 400, [Caller] * 3)
    assert min(counts.values()) > 3, counts


@pytest.mark.slow
def test_ten_thousand_operations_from_three_threads(oracle: dict, tmp_path: Path) -> None:
    counts = operate(oracle, tmp_path, 10_000, [Caller] * 3)
    assert sum(counts.values()) >= 10_000
    assert min(counts.values()) > 200, counts
