"""The trim program: a smaller base that remembers where it is from, whose adapters serve there."""

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny import DATA, MODEL, TRAIN, config, folders

from polylect.library import AdapterLibrary, base_fingerprint, cut_from
from polylect.models.backbone import load_backbone
from polylect.models.embedded import embedded_base
from polylect.programs import trim as program
from polylect.programs.train import main as train
from polylect.run.untrained_model import build_untrained
from polylect.translator import Translator

SETTINGS = ["model=tongues", "data=tongues", *DATA, "+data.train.seed=1", "lines=4"]


def trim(out: Path, *overrides: str) -> dict:
    program.main(config("trim", *SETTINGS, f"out={out}", *overrides))
    return json.loads((out / "record.json").read_text(encoding="utf-8"))["metrics"]


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A base with the vocabulary of much text, and the report; only for reading."""
    out = tmp_path_factory.mktemp("trimmed") / "base"
    return out, trim(out, "data.train.size=1500")


def test_the_report_says_what_became_of_entries_weights_and_text(trimmed) -> None:
    out, report = trimmed
    model, tokenizer = load_backbone(str(out))
    assert report["entries"] == [4096, len(tokenizer)] and len(tokenizer) < 3000
    assert report["parameters"][1] == sum(p.numel() for p in model.parameters())
    assert report["largest_logit_difference"] < 1e-5
    assert set(report["languages"]) == {"en", "de", "fr"}
    for fit in report["languages"].values():
        assert fit["same"] > 0.8 and fit["after"] >= fit["before"] > 0
        before, after = fit["nats_per_character"]
        assert after == pytest.approx(before, abs=0.2)


def test_the_new_base_remembers_the_old_one_in_each_precision(trimmed) -> None:
    whole, _ = embedded_base()
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = load_backbone(str(trimmed[0]), dtype=str(dtype).removeprefix("torch."))
        assert cut_from(model) == base_fingerprint(whole.to(dtype))
    assert cut_from(whole) is None


@pytest.mark.slow
def test_adapters_of_the_new_base_serve_on_the_old_one(trimmed, tmp_path: Path) -> None:
    out, _ = trimmed
    tiny = TRAIN[len(MODEL) :]
    steps = ["strategy=lora_switch", "trainer.max_steps=20", f"runs={tmp_path}"]
    train(config("train", "model=local", f"model.path={out}", *tiny, *steps))
    (run,) = folders(tmp_path)
    whole, _ = embedded_base()
    library = AdapterLibrary(run / "adapters")
    assert not library.check(whole)
    torch.manual_seed(1)
    other = whole.model.layers[0].self_attn.q_proj.weight
    other.data += 1e-3  # any other base is refused as ever
    assert "trained on another base" in dict(library.check(whole))["en-de"]

    cfg = config(
        "evaluate", "model=tongues", "data=tongues", *DATA, "strategy=lora_library",
        f"strategy.library={run / 'adapters'}",
        "+generation.ratio=0", "+generation.extra=5",  # as the run has it
    )  # fmt: skip
    here, there = Translator.from_run(run), Translator(build_untrained(cfg))
    sentences = ["The old farmer sleeps.", "The boy sees a small cat.", "We read the new book."]
    small, large = load_backbone(str(out))[1], embedded_base()[1]
    compared = 0
    for direction in ("en-de", "en-fr"):
        ours, theirs = (t.translate(sentences, direction) for t in (here, there))
        for one, other in zip(ours, theirs, strict=True):
            if small.tokenize(other) == large.tokenize(other):  # the new base can write it
                assert one == other
                compared += 1
    assert compared >= 3


def test_logits_with_an_adapter_are_those_of_the_old_base(trimmed, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    (whole, large), (cut, small) = embedded_base(), load_backbone(str(trimmed[0]))
    modules = ["q_proj", "v_proj", "down_proj"]
    tuned = get_peft_model(cut, LoraConfig(r=4, target_modules=modules, init_lora_weights=False))
    tuned.save_pretrained(tmp_path)
    served = PeftModel.from_pretrained(whole, tmp_path).eval()
    new = sorted(small.get_vocab().items(), key=lambda item: item[1])
    kept = [large.convert_tokens_to_ids(token) for token, _ in new]
    ids = small("The old farmer sleeps near our house.").input_ids
    with torch.no_grad():
        ours = tuned.eval()(torch.tensor([ids])).logits
        theirs = served(torch.tensor([[kept[i] for i in ids]])).logits[..., kept]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_text_that_cannot_be_written_is_said(tmp_path: Path, capsys) -> None:
    report = trim(
        tmp_path / "out", "data.directions=[en-de,en-hi]",
        "~data.train", "+data.train={en-de: {kind: tongues, size: 50}, en-hi: null}",
    )  # fmt: skip
    assert report["languages"]["hi"]["bytes_after"] > 0.3
    assert (
        "are bytes or unknown, before 0 %: the entries kept cannot write hi"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["out=."], "exists already and is not overwritten"),
        (["count=2", "size=900"], "give one of count, coverage, size, not count and size"),
        (["coverage=1.5"], "coverage must be above 0 and at most 1"),
        (["data=null"], "give text, as in data=captions, or languages"),
        (["languages=[xx]"], "unknown language code 'xx'"),
    ],
)
def test_bad_settings_are_sentences(overrides: list[str], words: str, tmp_path: Path) -> None:
    settings = ["model=tongues", *([] if "data=null" in overrides else ["data=tongues"])]
    rest = [o for o in overrides if o != "data=null"]
    with pytest.raises(ValueError, match=words):
        program.main(config("trim", *settings, f"out={tmp_path / 'out'}", *rest))


def test_languages_alone_keep_their_scripts(tmp_path: Path) -> None:
    cfg = config("trim", "model=tongues", f"out={tmp_path / 'out'}", "languages=[ta]")
    program.main(cfg)
    _, tokenizer = load_backbone(str(tmp_path / "out"))
    whole = embedded_base()[1]
    tamil = "சிறிய பூனை"
    assert tokenizer.tokenize(tamil) == whole.tokenize(tamil)
    assert len(tokenizer.tokenize("farmer")) > len(whole.tokenize("farmer"))


def test_tokens_named_are_kept_or_new_and_each_once(tmp_path: Path) -> None:
    whole = embedded_base()[1]
    known = next(token for token in whole.get_vocab() if token.strip() == "lions")
    trim(
        tmp_path / "out", "data.directions=[en-de]", "data.train.size=5", "lines=0",
        f"tokens=['<2xx>','<2xx>','{known}']",
    )  # fmt: skip
    model, tokenizer = load_backbone(str(tmp_path / "out"))
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert {"<2xx>", known} <= set(tokenizer.get_vocab())


def test_lines_longer_than_the_model_takes_are_said_and_not_scored(tmp_path: Path, capsys) -> None:
    from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

    base, tokenizer = tmp_path / "base", embedded_base()[1]
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=16)
    ).save_pretrained(base)
    tokenizer.save_pretrained(base)
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("en\tde\nThe old farmer sleeps.\tDer alte Bauer schläft.\n", encoding="utf-8")
    lines = [f"{'The cat sleeps. ' * n}\tJa {n}." for n in (1, 2, 30)]
    test.write_text("\n".join(["en\tde", *lines, ""]), encoding="utf-8")
    files = [f"data.train={train}", f"data.test={test}"]
    out = f"out={tmp_path / 'out'}"
    program.main(
        config("trim", f"model.path={base}", "data=files", "data.directions=[en-de]", *files, out)
    )
    assert "en  1 of them are longer than the model takes" in capsys.readouterr().out
    assert AutoConfig.from_pretrained(tmp_path / "out").vocab_size < len(tokenizer)
