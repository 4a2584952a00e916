"""What PEFT wrote is read here, what is written here is read by PEFT, with the same logits."""

import json

import pytest
import torch
from helpers.peft_bases import IDS, attach_random_adapters, install, logits, trained_by_peft
from peft import IA3Config, LoHaConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from polylect.library import Adapter, AdapterLibrary, incompatibility
from polylect.library.peft_format import CONFIG, WEIGHTS, read_peft
from polylect.library.targets import is_target

# PEFT 0.21 still asks transformers by a name that has been replaced.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

CLOSE = {"atol": 1e-5, "rtol": 1e-5}

CASES = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank pattern": {"rank_pattern": {"mlp.*": 2, r"(layers|h).1.*(q_proj|query_key_value)": 7}},
    "alpha pattern": {"alpha_pattern": {r".*(down_proj|4h_to_h)": 3, "(o_proj|dense)": 5}},
    "patterns, rslora": {
        "use_rslora": True,
        "rank_pattern": {r"(down_proj|dense_4h_to_h)": 3},
        "alpha_pattern": {r"(down_proj|dense_4h_to_h)": 9},
    },
    "regular expression": {"target_modules": r".*\.(q_proj|query_key_value|dense)"},
    "one layer": {
        "target_modules": ["v_proj", "query_key_value"],
        "layers_to_transform": [1],
    },
    "excluded": {"exclude_modules": ["k_proj", "dense"]},
}


def saved_by_peft(base, folder, **options):
    model = trained_by_peft(base, **options)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_what_peft_wrote_gives_the_same_logits(base, options, tmp_path):
    peft = saved_by_peft(base, tmp_path / "de", **options)
    adapter = AdapterLibrary(tmp_path).load("de")
    assert incompatibility(adapter, base) is None
    layers, context = attach_random_adapters(base)
    install(layers, "de", adapter)
    expected = peft(input_ids=IDS).logits
    torch.testing.assert_close(logits(base, context, ["de"] * 4), expected, **CLOSE)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_on_the_output_head_gives_the_same_logits(base, tmp_path):
    """BLOOM's is tied to the embedding, which stays as it is."""
    targets = ["lm_head", "dense", "o_proj"]
    peft = trained_by_peft(base, target_modules=targets)
    peft.save_pretrained(tmp_path / "de", save_embedding_layers=False)
    adapter = AdapterLibrary(tmp_path).load("de")
    assert incompatibility(adapter, base) is None
    layers, context = attach_random_adapters(
        base, [t for t in targets if any(t in p for p in adapter.modules)]
    )
    install(layers, "de", adapter)
    expected = peft(input_ids=IDS).logits.detach()
    with peft.disable_adapter():
        expected[1:3] = peft(input_ids=IDS[1:3]).logits
    mixed = logits(base, context, ["de", "", "", "de"])
    torch.testing.assert_close(mixed, expected, **CLOSE)


@pytest.mark.parametrize("ragged", [False, True])
def test_what_is_written_here_gives_the_same_logits_in_peft(base, ragged, tmp_path):
    layers, context = attach_random_adapters(base, de=4)
    if ragged:
        for number, layer in enumerate(layers.values()):
            layer.remove("de")
            if number % 3:
                layer.add("de", 1 + number, alpha=2.5 * number, rslora=number % 2 == 0)
                layer.lora_b["de"].data.normal_(std=0.2)
    expected = logits(base, context, ["de"] * 4)
    folder = AdapterLibrary(tmp_path).save("de", Adapter.of_layers(layers, "de"))
    clean = type(base)(base.config).eval()
    clean.load_state_dict(base.state_dict(), strict=False)
    peft = PeftModel.from_pretrained(clean, folder).eval()
    torch.testing.assert_close(peft(input_ids=IDS).logits, expected, **CLOSE)


def test_a_mixed_batch_is_pefts_adapter_names(base, tmp_path):
    peft = saved_by_peft(base, tmp_path / "x", r=4)
    for name, rank in (("fr", 2), ("ta", 6)):
        peft.add_adapter(name, trained_by_peft(base, r=rank).peft_config["default"])
    peft.save_pretrained(tmp_path)
    library = AdapterLibrary(tmp_path)
    layers, context = attach_random_adapters(base)
    for name in ("x", "fr", "ta"):
        install(layers, name, library.load(name))
    theirs = peft(input_ids=IDS, adapter_names=["ta", "default", "__base__", "fr"]).logits
    ours = logits(base, context, ["ta", "x", "", "fr"])
    torch.testing.assert_close(ours, theirs, **CLOSE)
    peft.set_adapter("fr")
    torch.testing.assert_close(ours[3:], peft(input_ids=IDS[3:]).logits, **CLOSE)


def test_half_precision_stays_as_it_is(plain, tmp_path):
    layers, _ = attach_random_adapters(plain, ["q_proj"], de=4)
    for layer in layers.values():
        a, b = layer.lora_a["de"].bfloat16(), layer.lora_b["de"].bfloat16()
        layer.set("de", a, b, layer.scaling["de"])
    library = AdapterLibrary(tmp_path)
    library.save("de", Adapter.of_layers(layers, "de"))
    again = library.load("de")
    for path, update in again.modules.items():
        assert update.a.dtype == torch.bfloat16
        assert torch.equal(update.b, layers[path].lora_b["de"])
        assert update.scaling == layers[path].scaling["de"]


# refusals


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [3]}, "trained tokens"),
        ({"fan_in_fan_out": True}, "Conv1D"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "replicated layers"),
        ({"alora_invocation_tokens": [1]}, "Activated LoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"peft_type": "ADALORA"}, "type ADALORA: only LORA"),
        ({"peft_type": None}, "type None"),
        ({"r": 5}, "gives it rank 5"),
        ({"target_modules": ["q_proj"]}, "target_modules .* does not name"),
    ],
)
def test_configurations_that_are_refused(plain, changes, words, tmp_path):
    saved_by_peft(plain, tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=words):
        read_peft(tmp_path)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize(
    "options, words",
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all", "target_modules": ["q_proj"]}, "trained biases"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "adapters on embeddings"),
    ],
)
def test_real_folders_that_are_refused(plain, options, words, tmp_path):
    saved_by_peft(plain, tmp_path, **options)
    with pytest.raises(ValueError, match=words):
        read_peft(tmp_path)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize(
    "tied, options, words",
    [
        (
            False,
            {},
            r"lm_head\.base_layer\.weight: a weight of the base .* save_embedding_layers=False$",
        ),
        (
            True,
            {},
            r"lm_head\.base_layer\.weight: a weight of the base .* save_embedding_layers=False$",
        ),
        (True, {"ensure_weight_tying": True}, "again with ensure_weight_tying=False$"),
    ],
)
def test_a_head_that_peft_saves_with_weights_of_the_base(plain, tied, options, words, tmp_path):
    config = type(plain.config)(**plain.config.to_dict() | {"tie_word_embeddings": tied})
    model = type(plain)(config)
    saved_by_peft(model, tmp_path, target_modules=["q_proj", "lm_head"], **options)
    with pytest.raises(ValueError, match=words):
        read_peft(tmp_path)


@pytest.mark.parametrize(
    "rename, words",
    [
        (
            lambda key: key.removeprefix("base_model.model."),
            r"holds model\.layers.*: the name lacks base_model\.model\. at its beginning; save",
        ),
        (
            lambda key: f"base_model.model.{key}",
            r"base_model\.model\. stands at its beginning twice, .*; save it again",
        ),
        (
            lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
            r"no name of PEFT's, which are base_model\.model\.PATH\.lora_A\.weight and",
        ),
    ],
)
def test_foreign_names_of_tensors_are_told_apart(plain, rename, words, tmp_path):
    saved_by_peft(plain, tmp_path)
    tensors = {rename(key): tensor for key, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=words):
        read_peft(tmp_path)


def test_what_state_dict_gives_is_no_file_of_peft(plain, tmp_path):
    model = saved_by_peft(plain, tmp_path)
    state = {key: t.contiguous() for key, t in model.state_dict().items() if "lora_" in key}
    save_file(state, tmp_path / WEIGHTS)
    words = r"lora_A\.default\.weight: the adapter's own name, 'default', .* without the \.default"
    with pytest.raises(ValueError, match=words):
        read_peft(tmp_path)


@pytest.mark.parametrize(
    "config, kind",
    [
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "IA3"),
        (LoHaConfig(target_modules=["q_proj"]), "LOHA"),
    ],
)
def test_other_tuners_are_refused(plain, config, kind, tmp_path):
    get_peft_model(plain, config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"type {kind}: only LORA"):
        read_peft(tmp_path)


def test_files_that_contradict_each_other_are_refused(plain, tmp_path):
    saved_by_peft(plain, tmp_path, target_modules=["q_proj"])
    tensors = load_file(tmp_path / WEIGHTS)
    first = min(tensors)
    for change, words in (
        ({first: None}, "has lora_B of .* but not the other"),
        ({"base_model.model.lm_head.weight": torch.zeros(2, 2)}, "holds .*lm_head.weight: fully"),
        ({first.replace("lora_A.weight", "lora_A.bias"): torch.zeros(2)}, "trained biases"),
        ({first: torch.zeros(4, 8, 1)}, "adapters on convolutions"),
        ({first.replace(".weight", "_magnitude_vector"): torch.zeros(2)}, "no name of PEFT's"),
        (dict.fromkeys(tensors), "holds no tensors"),
    ):
        kept = {key: t for key, t in (tensors | change).items() if t is not None}
        save_file(kept, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=words):
            read_peft(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("r", "4", "a whole number above 0"),
        ("r", 0, "a whole number above 0"),
        ("r", True, "a whole number above 0"),
        ("lora_alpha", "8", "a finite number"),
        ("lora_alpha", [8], "a finite number"),
        ("lora_alpha", float("nan"), "a finite number"),
        ("lora_alpha", float("inf"), "a finite number"),
        ("rank_pattern", ["q_proj"], "an object from regular expressions"),
        ("rank_pattern", {"q_proj": "4"}, "an object from regular expressions"),
        ("alpha_pattern", {"(": 4}, "an object from regular expressions"),
        ("alpha_pattern", {"q_proj": None}, "an object from regular expressions"),
        ("target_modules", "(", "a regular expression or a list of names"),
        ("target_modules", {"q_proj": 1}, "a regular expression or a list of names"),
        ("target_modules", ["q_proj", None], "a regular expression or a list of names"),
        ("exclude_modules", 3, "a regular expression or a list of names"),
        ("layers_to_transform", "0", "a whole number or a list of them"),
        ("layers_to_transform", [0, "1"], "a whole number or a list of them"),
        ("layers_pattern", "layers(", "a regular expression or a list of them"),
        ("base_model_name_or_path", ["llama"], "text, or null"),
        ("use_rslora", "false", "true or false"),
        ("use_rslora", 1, "true or false"),
    ],
)
def test_each_field_of_the_configuration_is_of_its_kind(plain, field, value, words, tmp_path):
    saved_by_peft(plain, tmp_path, target_modules=["q_proj"])
    edit(tmp_path, **{field: value})
    with pytest.raises(ValueError, match=rf"{CONFIG}:? .*{words}"):
        read_peft(tmp_path)


def test_a_configuration_without_alpha_is_refused(plain, tmp_path):
    saved_by_peft(plain, tmp_path, target_modules=["q_proj"])
    config = json.loads((tmp_path / CONFIG).read_text())
    del config["lora_alpha"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no lora_alpha"):
        read_peft(tmp_path)


def test_missing_and_damaged_files_are_named(plain, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no {CONFIG}"):
        read_peft(tmp_path)
    saved_by_peft(plain, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        read_peft(tmp_path)
    whole, pointer = (tmp_path / CONFIG).read_bytes(), b"version https://git-lfs.github.com/spec/v1"
    for name in (WEIGHTS, CONFIG):
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(ValueError, match=f"{name} is only a pointer of Git LFS"):
            read_peft(tmp_path)
    (tmp_path / CONFIG).write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_peft(tmp_path)
    (tmp_path / CONFIG).write_bytes(whole)
    part = (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model-00001-of-00002.safetensors")
    with pytest.raises(FileNotFoundError, match="it is in parts, save it again in one file"):
        read_peft(tmp_path)
    part.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="save it again as safetensors"):
        read_peft(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_peft(tmp_path)


# fit


def test_another_base_is_refused(plain, base, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj", "down_proj"])
    adapter = AdapterLibrary(tmp_path).load("de")
    assert incompatibility(adapter, plain) is None
    if type(base) is not type(plain):
        assert "the base has no module model.layers.0" in incompatibility(adapter, base)
    narrow = type(plain)(
        type(plain.config)(
            hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=50,
        )
    )  # fmt: skip
    assert "is 32 x 40 here, the adapter is for 32 x 48" in incompatibility(adapter, narrow)


def test_a_module_without_tensors_is_refused(plain, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj"])
    edit(tmp_path / "de", target_modules=["q_proj", "v_proj"])
    adapter = AdapterLibrary(tmp_path).load("de")
    assert "no tensors for model.layers.0.self_attn.v_proj" in incompatibility(adapter, plain)


def test_the_bases_name_is_compared_where_there_is_no_fingerprint(plain, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj"])
    edit(tmp_path / "de", base_model_name_or_path="google/gemma-2-2b")
    adapter = AdapterLibrary(tmp_path).load("de")
    plain.config._name_or_path = "/models/gemma-2-2b"
    assert incompatibility(adapter, plain) is None
    plain.config._name_or_path = "/models/gemma-2-9b"
    wrong = incompatibility(adapter, plain)
    assert "trained on the base 'google/gemma-2-2b', this one is" in wrong
    assert wrong.endswith(
        "put 'gemma-2-9b' as base_model_name_or_path into its adapter_config.json"
    )
    edit(tmp_path / "de", base_model_name_or_path="gemma-2-9b")
    assert incompatibility(AdapterLibrary(tmp_path).load("de"), plain) is None
    known = Adapter(adapter.modules, {"base_fingerprint": "a" * 64}, adapter.config)
    assert incompatibility(known, plain, "a" * 64) is None
    assert "another base (fingerprint aaaaaaaaaaaa" in incompatibility(known, plain, "b" * 64)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, False),
        ({"target_modules": "all-linear"}, True),
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["proj"]}, False),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1}, True),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0, 2]}, False),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "h"}, False),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
            True,
        ),
        ({"target_modules": r".*\.1\..*"}, True),
        ({"target_modules": "all-linear", "exclude_modules": ["q_proj"]}, False),
    ],
)
def test_targets(config, expected):
    assert is_target(config, "model.layers.1.self_attn.q_proj") is expected
