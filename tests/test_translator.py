"""The Python form: texts in any direction, adapters loaded and switched, the base untouched."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from polylect.library import Adapter, AdapterLibrary
from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.strategies.generation import Generation
from polylect.strategies.lora_switch import LoRASwitch
from polylect.translator import Translator

DIRECTIONS = ("en-de", "en-fr", "en-hi")
TEXTS = ("The small cat sees the old house.", "We read.", "The book is new today.")
SHORT = Generation(limit=8)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters far from zero, so that each direction says something else."""
    folder = tmp_path_factory.mktemp("run")
    module = LoRASwitch(directions=DIRECTIONS, template="tag", rank=4)
    module.adopt(*tiny_backbone())
    for group in module.parameter_groups():
        for parameter in group["params"]:
            torch.nn.init.normal_(parameter, std=0.3)
    module.export(folder)
    return folder / "adapters"


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
    with t.module.using("en-fr"):
        wrong = t.translate([TEXTS[0]], "en-de")
    with t.module.using(""):
        base = t.translate([TEXTS[0]], "en-de")
    assert own not in (wrong, base)
    assert t.translate([TEXTS[0]], "en-de") == own


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
    with plain.module.using(""):
        assert plain.translate(TEXTS, "en-de") == t.translate(TEXTS, "en-de")
    assert t.fingerprint() == before
    with pytest.raises(FileExistsError, match="not overwritten"):
        t.export_merged("en-de", tmp_path / "merged")
