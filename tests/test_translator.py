"""The Python form: texts in any direction, adapters loaded and switched, the base untouched."""

import shutil
import threading
from pathlib import Path

import pytest
import torch
from helpers.small import write_adapters
from peft import LoraConfig, get_peft_model

from polylect.files import write_text
from polylect.library import Adapter, AdapterLibrary
from polylect.library.folder import ABOUT
from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.strategies.decoding.translation import Translation
from polylect.strategies.generation import Generation
from polylect.strategies.lora_switch import LoRASwitch
from polylect.translator import Translator

DIRECTIONS = ("en-de", "en-fr", "en-hi")
TEXTS = ("The small cat sees the old house.", "We read.", "The book is new today.")
SHORT = Generation(limit=8)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters far from zero, so that each direction says something else."""
    return write_adapters(tmp_path_factory.mktemp("run"), DIRECTIONS)


def translator(library: Path | None, **settings) -> Translator:
    return Translator.from_base(
        *tiny_backbone(),
        library=library,
        template="tag",
        generation=SHORT,
        device="cpu",
        **settings,
    )


def test_a_mixed_list_is_translated_as_each_text_alone(library: Path) -> None:
    t = translator(library)
    mixed = t.translate(TEXTS, DIRECTIONS)
    alone = [t.translate([text], d)[0] for text, d in zip(TEXTS, DIRECTIONS, strict=True)]
    assert mixed == alone
    assert len({t.translate([TEXTS[0]], d)[0] for d in DIRECTIONS}) == 3


@pytest.mark.parametrize("before", [" ", "\ufeff", "\n", "\u3000", "\u200b", "\t\ufeff "])
@pytest.mark.parametrize("after", ["", "\r\n", "\u00a0", "\0"])
def test_a_text_is_cleaned_as_training_text_is(library: Path, before: str, after: str) -> None:
    t = translator(library)
    assert t.translate([before + TEXTS[0] + after], "en-de") == t.translate(TEXTS[:1], "en-de")
    assert t.too_long(before * 999 + TEXTS[0] + after, "en-de") is False


def test_an_empty_text_translates_to_an_empty_text(library: Path) -> None:
    t = translator(library)
    assert t.translate([""], "en-de") == [""]
    texts = ["\u3000", TEXTS[0], "", "\ufeff\n", TEXTS[1], " \t"]
    actual = t.translations(texts, ["en-de", "en-fr", "en-hi", "en-de", "en-hi", "en-fr"])
    whole = t.translations([TEXTS[0], TEXTS[1]], ["en-fr", "en-hi"])
    assert actual[1] == whole[0] and actual[4] == whole[1]
    assert all(actual[i] == Translation("", 0, False) for i in (0, 2, 3, 5))
    assert t.translate([], "en-de") == []
    with pytest.raises(ValueError, match="no adapter serves direction en-da"):
        t.translate([""], "en-da")


def test_half_of_a_character_is_refused_with_the_number_of_the_text(library: Path) -> None:
    with pytest.raises(ValueError, match=r"text 2: character 4, U\+D83D, is half of a surrogate"):
        translator(library).translate([TEXTS[0], "We \ud83d read."], "en-de")


def test_the_base_is_bit_identical_after_any_use(library: Path) -> None:
    t = translator(library)
    before = t.fingerprint()
    for _ in range(3):
        t.translate(TEXTS, DIRECTIONS)
        for name in DIRECTIONS:
            t.unload_adapter(name)
        for name in DIRECTIONS:
            t.load_adapter(library / name)
    assert t.fingerprint() == before == translator(None).fingerprint()


def test_adapters_are_listed_loaded_set_and_unloaded(library: Path) -> None:
    t = translator(None)
    assert t.adapters == []
    assert t.load_adapter(library / "en-de") == "en-de"
    assert t.load_adapter(library / "en-fr", name="french") == "french"
    assert t.adapters == ["en-de", "french"]
    t.set_adapter("french")
    assert t.translate(TEXTS[:1]) == translator(library).translate(TEXTS[:1], "en-fr")
    t.unload_adapter("french")
    assert t.adapters == ["en-de"]
    with pytest.raises(ValueError, match="no adapter is set"):
        t.translate(TEXTS[:1])
    with pytest.raises(ValueError, match="no adapter serves direction en-fr"):
        t.translate(TEXTS[:1], "en-fr")


def test_a_library_larger_than_memory_serves_by_turns(library: Path) -> None:
    size = AdapterLibrary(library).nbytes("en-de")
    t = translator(library, budget_mib=1.5 * size / 2**20)
    assert t.translate(TEXTS, DIRECTIONS) == translator(library).translate(TEXTS, DIRECTIONS)
    store = t.module.store
    assert len(store.resident) == 1
    assert store.bytes <= t.module.budget_bytes
    assert store.loads == 3
    assert store.evictions == 2


def test_an_adapter_that_does_not_fit_leaves_nothing_behind(library: Path, tmp_path: Path) -> None:
    other = tiny_backbone(hidden=32)[0]
    get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    t = translator(library)
    with pytest.raises(ValueError, match="does not fit"):
        t.load_adapter(tmp_path, name="other")
    assert "other" not in t.adapters
    assert t.translate(TEXTS, DIRECTIONS) == translator(library).translate(TEXTS, DIRECTIONS)


def test_a_plain_peft_folder_serves_the_direction_it_is_named_after(tmp_path: Path) -> None:
    model, tokenizer = tiny_backbone()
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    peft.save_pretrained(tmp_path / "en-de")
    t = translator(tmp_path)
    module, _ = t.module, t.load_adapter
    prompt = torch.tensor([module.prompt(TEXTS[0], "en-de").prompt])
    from polylect.data.batch import collate

    batch = collate([module.prompt(TEXTS[0], "en-de")], tokenizer.pad_token_id, "left")
    with torch.no_grad(), module.routing(batch):
        ours = module.backbone(prompt).logits
    with torch.no_grad():
        theirs = peft.eval()(prompt).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_using_another_adapter_than_the_direction_s_own(library: Path) -> None:
    t = translator(library)
    own = t.translate([TEXTS[0]], "en-de")
    with t.module.use_adapter("en-fr"):
        wrong = t.translate([TEXTS[0]], "en-de")
    with t.module.use_adapter(""):
        base = t.translate([TEXTS[0]], "en-de")
    assert own not in (wrong, base)
    assert t.translate([TEXTS[0]], "en-de") == own


# Adapters by name


@pytest.fixture
def second(library: Path, tmp_path: Path) -> Path:
    """Another adapter for en-de, in a folder of the same name: in truth that of en-fr."""
    folder = shutil.copytree(library / "en-fr", tmp_path / "elsewhere" / "en-de")
    write_text(folder / ABOUT, '{"directions": ["en-de"]}')
    return folder


def oracle(folder: Path) -> list[str]:
    """What an adapter alone makes of the texts as en-de."""
    t = translator(None)
    t.load_adapter(folder, "only", ["en-de"])
    return t.translate(TEXTS, "en-de")


def test_a_second_adapter_for_a_direction_is_used_when_it_is_named(
    library: Path, second: Path
) -> None:
    t = translator(library)
    assert t.load_adapter(second, name="mine") == "mine"
    own, mine = oracle(library / "en-de"), oracle(second)
    assert own != mine
    assert t.translate(TEXTS, "en-de") == own
    assert t.translate(TEXTS, "en-de", adapter="mine") == mine
    assert t.translate(TEXTS, adapter="mine") == mine
    mixed = t.translate(TEXTS, "en-de", adapter=["mine", None, "en-de"])
    assert mixed == [mine[0], own[1], own[2]]
    t.unload_adapter("en-de")
    assert t.translate(TEXTS, "en-de") == mine


def test_the_base_alone_can_be_set(library: Path) -> None:
    t = translator(library)
    alone = t.translate(["We read."], "en-de", adapter="")
    assert alone != t.translate(["We read."], "en-de")
    t.set_adapter("")
    assert t.translate(["We read."], "en-de") == alone


def test_the_adapter_that_is_set_is_the_one_that_is_used(library: Path, second: Path) -> None:
    t = translator(library)
    t.load_adapter(second, name="mine")
    own, mine = oracle(library / "en-de"), oracle(second)
    t.set_adapter("mine")
    for direction in (None, "en-de", ["en-de"] * 3):
        assert t.translate(TEXTS, direction) == mine
    assert t.translate(TEXTS, "en-de", adapter="en-de") == own
    t.check_direction("en-ta")  # which nobody serves, but a set adapter takes any
    t.set_adapter(None)
    assert t.translate(TEXTS, "en-de") == own
    t.set_adapter("mine")
    t.unload_adapter("mine")
    assert t.translate(TEXTS, "en-de") == own


def test_any_adapter_takes_any_direction_and_none_is_the_base(library: Path) -> None:
    t = translator(library)
    with t.module.use_adapter("en-fr"):
        expected = t.translate(TEXTS, "en-hi")
    assert t.translate(TEXTS, "en-hi", adapter="en-fr") == expected
    assert t.translate(TEXTS, "en-hi", adapter="") == translator(None).translate(
        TEXTS, "en-hi", adapter=""
    )
    assert t.translate([], "en-hi", adapter="en-fr") == []


def test_every_resident_adapter_can_be_named_whatever_the_budget(library: Path) -> None:
    t = translator(library)
    expected = [t.translate([TEXTS[0]], "en-de", adapter=name)[0] for name in DIRECTIONS]
    assert len(set(expected)) == 3
    size = AdapterLibrary(library).nbytes("en-de")
    small = translator(library, budget_mib=1.5 * size / 2**20)
    assert small.translate(TEXTS[:1] * 3, "en-de", adapter=DIRECTIONS) == expected


def test_two_adapters_of_a_library_have_to_be_named(library: Path, second: Path) -> None:
    both = shutil.copytree(library, second.parents[1] / "both")
    shutil.copytree(second, both / "mine")
    t = translator(both)
    with pytest.raises(ValueError, match="en-de is served by en-de and by mine: name one with"):
        t.translate(TEXTS, "en-de")
    assert t.translate(TEXTS, "en-de", adapter="mine") == oracle(second)
    t.set_adapter("en-de")
    assert t.translate(TEXTS) == oracle(library / "en-de")


def test_mistakes_about_adapters_name_what_to_do(library: Path, tmp_path: Path) -> None:
    t = translator(library)
    with pytest.raises(ValueError, match="no adapter is named 'en-da'; did you mean en-de"):
        t.translate(TEXTS, "en-de", adapter="en-da")
    with pytest.raises(ValueError, match="no adapter is named 'en-da'; did you mean en-de"):
        t.set_adapter("en-da")
    with pytest.raises(ValueError, match="3 texts and 2 adapters do not match"):
        t.translate(TEXTS, "en-de", adapter=["en-de", "en-fr"])
    with pytest.raises(ValueError, match="give a direction: no adapter is set or named"):
        t.translate(TEXTS, adapter=["en-de", "en-fr", None])
    with pytest.raises(ValueError, match="unknown language code 'ende'"):
        t.translate(TEXTS, "ende", adapter="en-de")
    t.load_adapter(library / "en-de", "two", ["en-ta", "en-it"])
    with pytest.raises(ValueError, match="give a direction: adapter two serves en-ta, en-it"):
        t.translate(TEXTS, adapter="two")
    trained = LoRASwitch(directions=DIRECTIONS, template="tag", rank=2, generation=SHORT)
    trained.set_backbone(*tiny_backbone())
    with pytest.raises(ValueError, match="LoRASwitch has no adapters to load or switch"):
        Translator(trained, "cpu").translate(TEXTS, "en-de", adapter="en-de")


def test_an_adapter_that_is_replaced_on_disk_is_the_new_one(library: Path, tmp_path: Path) -> None:
    own = AdapterLibrary(shutil.copytree(library, tmp_path / "own"))
    t = translator(own.path)
    assert t.translate(TEXTS, "en-de") == oracle(library / "en-de")
    own.save("en-de", own.load("en-fr"), overwrite=True)
    assert t.translate(TEXTS, "en-de", "en-de") == oracle(library / "en-fr")
    shutil.rmtree(own.path / "en-de")
    assert t.translate(TEXTS, "en-de", "en-de") == oracle(library / "en-fr")


def test_letters_are_no_directions(library: Path, tmp_path: Path) -> None:
    own = shutil.copytree(library, tmp_path / "own")
    write_text(own / "en-de" / ABOUT, '{"directions": "en-de"}')
    with pytest.raises(
        ValueError, match=r"en-de/polylect\.json: directions must be a list of names"
    ):
        translator(own)
    t = translator(library)
    with pytest.raises(ValueError, match="directions must be a list of names"):
        t.load_adapter(own / "en-de", "letters")
    assert t.adapters == sorted(DIRECTIONS)


# Hooks and threads


def test_a_call_from_within_a_translation_is_refused_and_changes_nothing(library: Path) -> None:
    size = AdapterLibrary(library).nbytes("en-de")
    t = translator(library, budget_mib=1.5 * size / 2**20)
    expected = t.translate(TEXTS, "en-de")
    calls = [
        lambda: t.translate(TEXTS, "en-fr"),
        lambda: t.translate(["The book."], adapter="en-hi"),
        lambda: t.load_adapter(library / "en-fr", "more"),
        lambda: t.unload_adapter("en-de"),
        lambda: t.set_adapter("en-fr"),
        lambda: t.remember(None),
        lambda: t.fingerprint(),
        lambda: t.export_merged("en-fr", library / "merged"),
    ]
    refused = []

    def hook(*_: object) -> None:
        if len(refused) < len(calls):
            with pytest.raises(RuntimeError, match="a route is open already"):
                calls[len(refused)]()
            refused.append(t.adapters)

    handle = t.module.backbone.model.layers[1].register_forward_pre_hook(hook)
    translations = [t.translate(TEXTS, "en-de") for _ in range(3)]
    handle.remove()
    assert refused == [sorted(DIRECTIONS)] * len(calls)
    assert translations == [expected] * 3
    assert (t.module.store.resident, t.module.store.evictions) == (("en-de",), 0)
    assert not (library / "merged").exists()


def test_whoever_calls_from_another_thread_waits(library: Path) -> None:
    t = translator(library)
    expected = t.translate(TEXTS, "en-de")
    begun, waiting = threading.Event(), []

    def hook(*_: object) -> None:
        if not waiting:
            waiting.append(threading.Thread(target=t.unload_adapter, args=("en-de",)))
            waiting[0].start()
            begun.set()

    handle = t.module.backbone.model.layers[1].register_forward_pre_hook(hook)
    assert t.translate(TEXTS, "en-de") == expected
    handle.remove()
    assert begun.is_set()
    waiting[0].join(10)
    assert t.adapters == ["en-fr", "en-hi"]
    with pytest.raises(ValueError, match="no adapter serves direction en-de"):
        t.translate(TEXTS, "en-de")


def test_mistakes_name_what_to_do(library: Path, tmp_path: Path) -> None:
    t = translator(library)
    with pytest.raises(ValueError, match="did you mean en-de"):
        t.translate(["x"], "en-da")
    with pytest.raises(ValueError, match="a list of texts"):
        t.translate("one text", "en-de")
    with pytest.raises(ValueError, match="2 texts and 1 directions"):
        t.translate(["a", "b"], ["en-de"])
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        t.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="there already"):
        t.load_adapter(library / "en-de")
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        translator(tmp_path)


def test_adapters_keep_what_was_trained(library: Path) -> None:
    about = AdapterLibrary(library).load("en-hi").about
    assert about["directions"] == ["en-hi"]
    assert about["template"] == "tag"
    assert isinstance(AdapterLibrary(library).load("en-hi"), Adapter)


def test_a_merged_export_is_a_plain_model_that_says_the_same(library: Path, tmp_path: Path) -> None:
    t = translator(library)
    before = t.fingerprint()
    difference = t.export_merged("en-de", tmp_path / "merged")
    assert 0 <= difference < 1e-3
    plain = Translator.from_base(
        *load_backbone(str(tmp_path / "merged")), template="tag", generation=SHORT, device="cpu"
    )
    with plain.module.use_adapter(""):
        assert plain.translate(TEXTS, "en-de") == t.translate(TEXTS, "en-de")
    assert t.fingerprint() == before
    with pytest.raises(FileExistsError, match="not overwritten"):
        t.export_merged("en-de", tmp_path / "merged")


def test_a_folder_with_a_dot_in_its_name_is_loaded_under_another(
    library: Path, tmp_path: Path
) -> None:
    """As versions have, v1.2; the layers' parameters are named for the adapter."""
    folder = tmp_path / "en-de.v1.2"
    shutil.copytree(library / "en-de", folder)
    t = translator(library)
    with pytest.raises(ValueError, match=r"adapter name 'en-de\.v1\.2': .* as in 'en-de-v1-2'"):
        t.load_adapter(folder)
    assert t.load_adapter(folder, name="en-de-v1-2") == "en-de-v1-2"
    assert t.translate(TEXTS, "en-de", adapter="en-de-v1-2") == t.translate(TEXTS, "en-de")
