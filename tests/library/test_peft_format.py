"""What PEFT wrote is read here, what is written here is read by PEFT, with the same logits."""

import json

import pytest
import torch
from peft import IA3Config, LoHaConfig, PeftModel, get_peft_model
from peft_bases import IDS, adapted, install, logits, trained_by_peft
from safetensors.torch import load_file, save_file

from polylect.library import Adapter, AdapterLibrary, misfit
from polylect.library.peft_format import CONFIG, WEIGHTS, read_peft
from polylect.library.targets import targeted

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
    assert misfit(adapter, base) is None
    layers, context = adapted(base)
    install(layers, "de", adapter)
    expected = peft(input_ids=IDS).logits
    torch.testing.assert_close(logits(base, context, ["de"] * 4), expected, **CLOSE)


@pytest.mark.parametrize("ragged", [False, True])
def test_what_is_written_here_gives_the_same_logits_in_peft(base, ragged, tmp_path):
    layers, context = adapted(base, de=4)
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
    layers, context = adapted(base)
    for name in ("x", "fr", "ta"):
        install(layers, name, library.load(name))
    theirs = peft(input_ids=IDS, adapter_names=["ta", "default", "__base__", "fr"]).logits
    ours = logits(base, context, ["ta", "x", "", "fr"])
    torch.testing.assert_close(ours, theirs, **CLOSE)
    peft.set_adapter("fr")
    torch.testing.assert_close(ours[3:], peft(input_ids=IDS[3:]).logits, **CLOSE)


def test_half_precision_stays_as_it_is(plain, tmp_path):
    layers, _ = adapted(plain, ["q_proj"], de=4)
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
        ({first.replace(".weight", "_magnitude_vector"): torch.zeros(2)}, "only LoRA on linear"),
        (dict.fromkeys(tensors), "holds no tensors"),
    ):
        kept = {key: t for key, t in (tensors | change).items() if t is not None}
        save_file(kept, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=words):
            read_peft(tmp_path)


def test_missing_and_damaged_files_are_named(plain, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no {CONFIG}"):
        read_peft(tmp_path)
    saved_by_peft(plain, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        read_peft(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="save it again as safetensors"):
        read_peft(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_peft(tmp_path)


# fit


def test_another_base_is_refused(plain, base, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj", "down_proj"])
    adapter = AdapterLibrary(tmp_path).load("de")
    assert misfit(adapter, plain) is None
    if type(base) is not type(plain):
        assert "the base has no module model.layers.0" in misfit(adapter, base)
    narrow = type(plain)(
        type(plain.config)(
            hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=50,
        )
    )  # fmt: skip
    assert "is 32 x 40 here, the adapter is for 32 x 48" in misfit(adapter, narrow)


def test_a_module_without_tensors_is_refused(plain, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj"])
    edit(tmp_path / "de", target_modules=["q_proj", "v_proj"])
    adapter = AdapterLibrary(tmp_path).load("de")
    assert "no tensors for model.layers.0.self_attn.v_proj" in misfit(adapter, plain)


def test_the_bases_name_is_compared_where_there_is_no_fingerprint(plain, tmp_path):
    saved_by_peft(plain, tmp_path / "de", target_modules=["q_proj"])
    edit(tmp_path / "de", base_model_name_or_path="google/gemma-2-2b")
    adapter = AdapterLibrary(tmp_path).load("de")
    plain.config._name_or_path = "/models/gemma-2-2b"
    assert misfit(adapter, plain) is None
    plain.config._name_or_path = "/models/gemma-2-9b"
    assert "trained on the base 'google/gemma-2-2b', this one is" in misfit(adapter, plain)
    known = Adapter(adapter.modules, {"base_fingerprint": "a" * 64}, adapter.config)
    assert misfit(known, plain, "a" * 64) is None
    assert "another base (fingerprint aaaaaaaaaaaa" in misfit(known, plain, "b" * 64)


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
    assert targeted(config, "model.layers.1.self_attn.q_proj") is expected
