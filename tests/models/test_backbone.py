"""Loading: what was saved comes back, what cannot work is refused with a sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, ViTConfig

from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.models.families import FAMILIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tokenizer = tiny_backbone()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_model_comes_back_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_backbone(name)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, same = load_backbone(str(tmp_path))
    ids = tokenizer(["Die kleine Katze", "சிறிய பூனை <2ta>"]).input_ids
    assert same(["Die kleine Katze", "சிறிய பூனை <2ta>"]).input_ids == ids
    with torch.no_grad():
        for row in ids:
            x = torch.tensor([row])
            assert torch.equal(model(x).logits, again(x).logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_attention_is_exact(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_backbone(name)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = torch.tensor([tokenizer("We read the new book").input_ids])
    with torch.no_grad():
        default = load_backbone(str(tmp_path))[0](ids).logits
        eager = load_backbone(str(tmp_path), attention="eager")[0](ids).logits
    # float32, two layers: implementations differ in the order of summation only.
    torch.testing.assert_close(default, eager, atol=1e-5, rtol=1e-4)


def test_a_random_model_follows_its_seed_and_leaves_the_callers_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (tiny_backbone(seed=seed)[0].lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_dtype_is_the_one_asked_for_whatever_the_checkpoint(folder: Path) -> None:
    load_backbone(str(folder), dtype="bfloat16")[0].save_pretrained(folder)
    assert load_backbone(str(folder))[0].dtype == torch.float32
    assert load_backbone(str(folder), dtype="checkpoint")[0].dtype == torch.bfloat16


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", pad_token=None)
    model, tokenizer = load_backbone(str(folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == model.generation_config.pad_token_id


def test_sampling_settings_of_a_checkpoint_are_dropped_but_its_ends_kept(folder: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.3}
    change_json(folder / "generation_config.json", eos_token_id=[2, 7], **settings)
    generation = load_backbone(str(folder))[0].generation_config
    assert generation.eos_token_id == [2, 7]
    assert not generation.do_sample and generation.repetition_penalty in (None, 1.0)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.safetensors", LFS, "only a pointer of Git LFS and not a file of a model"),
        ("config.json", LFS, "only a pointer of Git LFS"),
        ("tokenizer.json", LFS, "only a pointer of Git LFS"),
        ("model.safetensors", b"", "is empty and not a file of a model"),
        ("model.safetensors", b"x" * 500, r"model\.path=.*base has weights that are damaged"),
        ("tokenizer.json", b"{", r"model\.path=.* has no tokenizer that loads"),
        ("tokenizer_config.json", b"{", r"model\.path=.* has no tokenizer that loads"),
    ],
)
def test_a_file_that_is_not_whole_is_named(
    name: str, content: bytes, sentence: str, folder: Path
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        load_backbone(str(folder))
    assert len(str(error.value).splitlines()) == 1


def test_code_in_pickled_weights_does_not_run(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return open, (str(folder / "executed"), "w")

    (folder / "model.safetensors").unlink()
    torch.save({"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="damaged, or that hold more than tensors"):
        load_backbone(str(folder))
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"dtype": "float23"}, r"model\.dtype=float23 does not exist; did you mean float32"),
        ({"attention": "spda"}, r"model\.attention=spda does not exist; did you mean sdpa"),
        ({"quantize": "3bit"}, r"model\.quantize=3bit does not exist; did you mean 4bit"),
    ],
)
def test_unknown_settings_are_answered_with_the_nearest(setting: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_backbone("anything", **setting)


def test_an_attention_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    model, tokenizer = tiny_backbone("bloom")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model\.attention=sdpa does not work for bloom here"):
        load_backbone(str(tmp_path), attention="sdpa")


@pytest.mark.parametrize("path", ["./missing", "/no/such/folder", "a/b/c", "~/none", ""])
def test_a_missing_folder_is_said_without_asking_the_hub(path: str) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder: give one"):
        load_backbone(path)


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a folder without config\.json"):
        load_backbone(str(tmp_path))


def test_a_hub_model_that_cannot_be_had_offline_is_said() -> None:
    with pytest.raises(FileNotFoundError, match="hf download nobody/nothing") as error:
        load_backbone("nobody/nothing")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(T5Config(), "encoder-decoder model"), (ViTConfig(), "no causal language model .vit.")],
)
def test_other_kinds_of_models_are_refused(config, sentence: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load_backbone(str(tmp_path))


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    trap = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass C: pass\n"
    (folder / "trap.py").write_text(trap)
    change_json(folder / "config.json", model_type="new", auto_map={"AutoConfig": "trap.C"})
    with pytest.raises(ValueError, match="code that comes with a model is never run"):
        load_backbone(str(folder))
    assert not list(folder.glob("**/ran"))


def test_missing_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj\.weight"):
        load_backbone(str(folder))


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder: Path) -> None:
    tokenizer = tiny_backbone(languages=[f"q{a}{b}" for a in "abcde" for b in "abcde"])[1]
    tokenizer.add_tokens(["onemore"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="do not belong together"):
        load_backbone(str(folder))


def test_a_tokenizer_without_an_end_is_refused(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ValueError, match="without an end token"):
        load_backbone(str(folder))


def test_four_bits_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="needs the package bitsandbytes and accelerate: pip"):
        load_backbone("anything", quantize="4bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        load_backbone("anything", quantize="4bit")


def test_sizes_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match="hidden a multiple of 2 x heads"):
        tiny_backbone(hidden=66)


def change_json(file: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes one."""
    state = json.loads(file.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in state.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")
