"""A library put to use: who serves a direction, what is named, and what is refused in a route."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small import DIRECTIONS, ROWS, batch_of, build, logits
from test_lag import export

from polylect.data.batch import Example, TranslationBatch
from polylect.library import AdapterLibrary
from polylect.library.folder import ABOUT
from polylect.strategies.decoding import open_rows
from polylect.strategies.decoding.translation import Accept, Watch
from polylect.strategies.lora_library import LoRALibrary


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter per direction."""
    return export(tmp_path_factory.mktemp("library"))


@pytest.fixture
def own(library: Path, tmp_path: Path) -> Path:
    """A copy of it with a second adapter for en-de, which is that of en-fr under another name."""
    folder = shutil.copytree(library, tmp_path / "adapters")
    shutil.copytree(folder / "en-fr", folder / "mine")
    (folder / "mine" / ABOUT).write_text(json.dumps({"directions": ["en-de"]}))
    return folder


def make(library: Path, *overrides: str) -> LoRALibrary:
    return build("lora_library", f"strategy.library={library}", *overrides)


def named(module: LoRALibrary, *adapters: str | None) -> TranslationBatch:
    batch = batch_of(module)
    batch.adapters = adapters
    return batch


@torch.no_grad()
def run(module: LoRALibrary, batch: TranslationBatch) -> torch.Tensor:
    return logits(module, batch)


def test_a_row_goes_through_the_adapter_that_is_named_for_it(library: Path) -> None:
    module = make(library)
    by_name = {}
    for name in ("", *DIRECTIONS):
        with module.use_adapter(name):
            by_name[name] = run(module, batch_of(module))
    own, given = ("en-de", "en-de", "en-fr", "en-hi"), ("en-hi", "", None, "en-de")
    actual = run(module, named(module, *given))
    for row, (name, direction) in enumerate(zip(given, own, strict=True)):
        torch.testing.assert_close(actual[row], by_name[direction if name is None else name][row])
    with pytest.raises(ValueError, match="no adapter is named 'en-dd'; did you mean en-de"):
        run(module, named(module, "en-dd", None, None, None))
    assert torch.equal(run(module, named(module, *given)), actual)


# Two adapters that serve one direction


def test_two_adapters_of_a_library_are_told_apart(own: Path) -> None:
    module = make(own)
    sentence = r"en-de is served by en-de and by mine: name one with adapter=en-de, or strategy"
    with pytest.raises(ValueError, match=sentence):
        run(module, batch_of(module))
    run(module, batch_of(module, ROWS[2:]))  # the others are not concerned
    mine = run(module, named(module, "mine", "mine", None, None))
    assert torch.equal(run(make(own, "strategy.adapters={mine: [en-de]}"), batch_of(module)), mine)
    first = run(module, named(module, "en-de", "en-de", None, None))
    assert torch.equal(
        run(make(own, "strategy.adapters={en-de: [en-de]}"), batch_of(module)), first
    )
    assert not torch.equal(mine, first)
    module.drop("en-de")
    assert torch.equal(run(module, batch_of(module)), mine)


def test_one_that_is_added_later_leaves_the_direction_where_it_is(library: Path, own: Path) -> None:
    module = make(library)
    before = run(module, batch_of(module))
    module.add(own / "mine")
    assert torch.equal(run(module, batch_of(module)), before)
    module.drop("en-de")
    assert module.adapter("en-de") == "mine"
    assert not torch.equal(run(module, batch_of(module)), before)
    module.add(library / "en-de")
    assert module.adapter("en-de") == "mine"
    module.drop("mine")
    assert torch.equal(run(module, batch_of(module)), before)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("{mina: [en-de]}", r"strategy\.adapters names mina, .* did you mean mine"),
        ("{mine: en-de}", r"strategy\.adapters\.mine must be a list, such as \[en-de\]"),
        ("{mine: [en-de], en-de: [en-de]}", "direction en-de to two adapters, mine and en-de"),
    ],
)
def test_mistakes_in_the_setting_are_named(own: Path, setting: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(own, f"strategy.adapters={setting}")


def test_a_folder_without_notes_serves_what_it_or_its_adapter_is_named_for(
    library: Path, tmp_path: Path
) -> None:
    (tmp_path / "step-500").mkdir()
    for target in ("en-ta", "step-500/checkpoint"):
        shutil.copytree(library / "en-de", tmp_path / target)
        (tmp_path / target / ABOUT).unlink()
    module = make(library)
    module.add(tmp_path / "en-ta", "mine")
    module.add(tmp_path / "step-500/checkpoint", "en-pt_BR")
    module.add(tmp_path / "step-500/checkpoint")
    assert module.adapter("en-ta") == "mine"
    assert module.adapter("en-pt_BR") == "en-pt_BR"
    assert module.adapter_index.directions_of("checkpoint") == ("checkpoint",)
    module.add(tmp_path / "en-ta", "given", ["en-es"])
    assert module.adapter("en-es") == "given"
    with pytest.raises(ValueError, match=r"directions must be a list, such as \['en-it'\]"):
        module.add(tmp_path / "en-ta", "text", "en-it")
    (tmp_path / "en-ta" / ABOUT).write_text('{"directions": "en-it"}')
    with pytest.raises(ValueError, match="directions must be a list of names"):
        module.add(tmp_path / "en-ta", "letters")
    assert "letters" not in module.adapter_index.names


# Files that change


def test_a_replaced_adapter_counts_from_the_next_batch_on(own: Path) -> None:
    module = make(own, "strategy.adapters={en-de: [en-de]}")
    batch = batch_of(module)
    with module.use_adapter("en-fr"):
        french = run(module, batch)
    before = run(module, batch)
    disk = AdapterLibrary(own)
    with module.routing(batch), torch.no_grad():
        disk.save("en-de", disk.load("en-fr"), overwrite=True)
        assert torch.equal(module.backbone(batch.input_ids, batch.attention_mask).logits, before)
    after = run(module, batch)
    torch.testing.assert_close(after[:2], french[:2])
    assert torch.equal(after[2:], before[2:])


def test_a_replaced_adapter_may_change_other_layers_and_serve_other_directions(
    tmp_path: Path,
) -> None:
    disk = AdapterLibrary(export(tmp_path / "attention", "strategy.targets=attention"))
    module, other = make(disk.path), make(export(tmp_path / "ffn", "strategy.targets=ffn"))
    run(module, batch_of(module))
    new = AdapterLibrary(tmp_path / "ffn" / "adapters").load("en-hi")
    new.about["directions"] = ["en-hi", "en-ta"]
    disk.save("en-hi", new, overwrite=True)
    assert module.adapter("en-ta") == "en-hi"
    with module.use_adapter("en-hi"), other.use_adapter("en-hi"):
        torch.testing.assert_close(run(module, batch_of(module)), run(other, batch_of(other)))


# Within a route


def test_nothing_is_loaded_unloaded_or_evicted_within_a_route(library: Path) -> None:
    size = AdapterLibrary(library).nbytes("en-de")
    module = make(library, f"strategy.budget_mib={1.5 * size / 2**20}")
    french, hindi = batch_of(module, ROWS[2:3]), batch_of(module, ROWS[3:])
    expected = run(module, french)
    refused = (
        lambda: module.routing(hindi).__enter__(),
        lambda: module.load("en-hi"),
        lambda: module.unload("en-fr"),
        lambda: module.drop("en-fr"),
        lambda: module.add(library / "en-fr", "more"),
        lambda: module.use_adapter("").__enter__(),
        lambda: module.merged_model("en-hi", hindi.input_ids),
    )
    with module.routing(french), torch.no_grad():
        for act in refused:
            with pytest.raises(RuntimeError, match="a route is open already"):
                act()
        for act in (lambda: module.store.unload("en-fr"), lambda: module.store.acquire(["en-hi"])):
            with pytest.raises(ValueError, match=r"in use|the budget is"):
                act()
        actual = module.backbone(french.input_ids, french.attention_mask).logits
    assert torch.equal(actual, expected)
    assert module.store.resident == ("en-fr",)
    assert module.adapter_index.names == sorted(DIRECTIONS)
    module.unload("en-fr")


# Rows that join a batch


def test_a_row_keeps_its_adapter_when_that_is_replaced_and_others_join(
    library: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks for the new one waits for the end of the batch, as others do not."""
    monkeypatch.setattr(open_rows, "STEPS", 2)
    module = make(own, "generation.ratio=0", "generation.extra=9")
    prompts = [
        replace(module.prompt(source, "en-de"), adapter=name)
        for source in ("We read.", "The old book.")
        for name in ("en-de", "mine", "en-hi")
    ]
    before = [module.translate([prompt])[0] for prompt in prompts]
    asked: list[tuple[str, bool]] = []

    def join(accept: Accept) -> list[tuple[int, Example]]:
        if not asked:  # in the midst of the batch
            shutil.rmtree(own / "mine")
            shutil.copytree(own / "en-hi", own / "mine")
        for number in (4, 5):
            asked.append((prompts[number].adapter, accept(prompts[number])))
        return [(5, prompts[5])]

    watch = Watch(waits=lambda: not asked, join=join)
    together = dict(module.translate_as_decoded(prompts[:3], watch))
    assert asked == [("mine", False), ("en-hi", True)]
    assert together == {number: before[number] for number in (0, 1, 2, 5)}
    assert (
        [module.translate([prompts[n]])[0] for n in (1, 4)]
        == [before[2], before[5]]
        != [
            before[1],
            before[4],
        ]
    )


def test_rows_join_as_far_as_their_adapters_fit(library: Path) -> None:
    nbytes = AdapterLibrary(library).nbytes("en-de")
    module = make(library, f"strategy.budget_mib={2.5 * nbytes / 2**20}")
    with module.hold([None, None], ["en-de", "en-fr"]):
        assert module.can_join([None], ["en-fr"])
        assert module.can_join(["", None], ["en-de", "en-de"])
        assert not module.can_join([None], ["en-hi"])
    assert module.can_join([None], ["en-hi"])
