"""What goes with an export: how vLLM takes it, and a model card for the hub."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.gguf_files import byte_level
from huggingface_hub import ModelCard
from tokenizers import decoders
from transformers import AutoTokenizer

from polylect.cli import run
from polylect.data.prompt import template as named_template
from polylect.library import Adapter
from polylect.library.adapter import LowRank
from polylect.models.backbone import tiny_backbone
from polylect.run.build import load
from polylect.run.passport.file import Passport
from polylect.run.results.export import stop_texts
from polylect.run.results.gguf import modelfile
from polylect.run.results.vllm import max_lora_rank, request, vllm_faults


def export(out: Path, *settings: str) -> int:
    return run(["export", f"out={out}", "device=cpu", *settings])


def adapter(**modules: tuple[int, float]) -> Adapter:
    """An adapter with ranks and scalings by module."""
    return Adapter(
        {
            name: LowRank(torch.ones(rank, 4), torch.ones(4, rank), scaling)
            for name, (rank, scaling) in modules.items()
        }
    )


@pytest.mark.parametrize(
    ("modules", "fault"),
    [
        ({"x": (16, 2.0), "y": (16, 2.0)}, None),
        ({"x": (8, 2.0), "y": (16, 2.0)}, None),
        ({"x": (513, 1.0)}, "its rank is above 512"),
        ({"x": (8, 2.0), "y": (8, 1.0)}, "its scaling is 2 in x and 1 in y, and vLLM takes one"),
        ({"x": (8, 1.0), "lm_head": (8, 1.0)}, "it changes the output head"),
    ],
)
def test_vllm_takes_one_scaling_a_rank_and_linear_layers(modules: dict, fault: str | None) -> None:
    found = vllm_faults(adapter(**modules), tiny_backbone(hidden=32)[0].config)
    assert (found == []) if fault is None else (len(found) == 1 and found[0].startswith(fault))


@pytest.mark.parametrize(("rank", "least"), [(1, 1), (2, 8), (16, 16), (17, 32), (512, 512)])
def test_the_least_rank_that_vllm_may_be_given(rank: int, least: int) -> None:
    assert max_lora_rank([adapter(x=(rank, 1.0)), adapter(x=(1, 1.0))]) == least


@pytest.mark.parametrize(
    ("template", "stops"), [("plain", ["\n"]), ("tag", []), ("chat", ["<end>"])]
)
def test_servers_are_told_where_a_translation_ends(template: str, stops: list[str]) -> None:
    """Beside the end token, which they know."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start>", "<end>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
    )
    module = SimpleNamespace(
        tokenizer=tokenizer,
        template=named_template(template),
        generation=SimpleNamespace(limit=9),
        prompt=lambda text, direction: SimpleNamespace(prompt=tokenizer(text)["input_ids"]),
    )
    assert stop_texts(module) == stops
    text = modelfile(module, ["en-de"], "base.gguf")
    assert "".join(f'PARAMETER stop "{stop}"\n' for stop in stops) in text
    assert text.count("PARAMETER stop") == len(stops)
    (body,) = re.findall(r"-d '(.*)'$", request(module, "base", "en-de"))
    assert json.loads(body).get("stop", []) == stops


def requests(said: str) -> tuple[list[str], dict]:
    """The command that starts vLLM, as a shell splits it, and the body of the request to it."""
    serve, curl = (shlex.split(line) for line in re.findall(r"^  ((?:vllm|curl) .*)$", said, re.M))
    return serve, json.loads(curl[curl.index("-d") + 1])


def test_adapters_go_to_vllm_and_the_hub(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapters"
    hub = ["hub=me/translator", "dry_run=true"]
    assert export(out, f"run={tiny_run}", "form=adapters", *hub) == 0
    said = capsys.readouterr().out
    serve, body = requests(said)
    assert serve[serve.index("--max-lora-rank") + 1] == "16"
    named = dict(module.split("=") for module in serve[serve.index("--lora-modules") + 1 :])
    assert named == {name: str(out / name) for name in ("en-de", "en-fr")}
    module, _ = load(tiny_run)
    ids = module.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
    asked = module.prompt("The boy sleeps.", "en-de").prompt
    assert ids == [i for i in asked if i != module.tokenizer.bos_token_id]  # which vLLM puts there
    assert body["model"] == "en-de" and body["temperature"] == 0
    for path in out.rglob("*"):
        assert path.is_dir() or str(path.relative_to(out)) in said
    check_card(out, said, "peft", Passport.read(out / "en-de"))


def test_a_merged_model_goes_to_vllm_and_the_hub(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    hub = ["hub=me/translator", "dry_run=true"]
    assert export(out, f"run={tiny_run}", "name=en-fr", *hub) == 0
    said = capsys.readouterr().out
    serve, body = requests(said)
    assert serve == ["vllm", "serve", str(out)] and body["model"] == str(out)
    assert AutoTokenizer.from_pretrained(out)(body["prompt"])["input_ids"]
    check_card(out, said, "transformers", Passport.read(out))


def check_card(folder: Path, said: str, library: str, passport: Passport) -> None:
    """Its head is what the hub reads, its scores are those of the passport, with signatures."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.rstrip() in said
    card = ModelCard(text)
    assert card.data.library_name == library and card.data.pipeline_tag == "translation"
    assert {"en", "fr"} <= set(card.data.language) and card.data.get("license") is None
    (direction,) = passport.directions
    scores = passport.scores[direction]
    held = {
        (result.dataset_name, result.metric_type): (result.metric_value, result.metric_name)
        for result in card.data.eval_results
    }
    for metric, score in scores.items():
        value, name = held[f"test set {direction}", metric]
        assert value == pytest.approx(score["value"], abs=0.01) and score["signature"] in name
    assert passport.golden[0].text[:20].replace("|", "\\|") in text
    assert str(folder.parent) not in text, "a path of this machine"


def test_what_the_hub_does_not_take_stays_here(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tests have no network, so that an upload fails at once."""
    out = tmp_path / "out"
    given = [f"run={tiny_run}", "form=adapters", "name=en-de", "hub=me/translator"]
    assert export(out, *given) == 2
    assert re.search(r"is whole, and hub=me/translator did not take it", capsys.readouterr().err)
    assert (out / "adapter_config.json").is_file() and (out / "README.md").is_file()
