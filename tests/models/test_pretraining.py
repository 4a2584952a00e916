"""A base made from text: it learns, the folder loads, nothing is left half done."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polylect.models import pretraining
from polylect.models.backbone import load_backbone
from polylect.models.documents import Documents
from polylect.models.pretraining import pretrain
from polylect.models.tokenizer import train_tokenizer

WHO = {"en": ["The cat", "The dog", "The bird"], "de": ["Die Katze", "Der Hund", "Der Vogel"]}
DOES = {"en": ["sleeps", "runs", "sings", "eats"], "de": ["schläft", "rennt", "singt", "frisst"]}
WHERE = {"en": ["here", "there", "today", "now"], "de": ["hier", "dort", "heute", "jetzt"]}
TEXTS = {
    code: [f"{a} {b} {c}." for a in WHO[code] for b in DOES[code] for c in WHERE[code]]
    for code in WHO
}
SMALL = {
    "vocabulary": 400, "layers": 2, "hidden": 32, "ffn": 64, "heads": 2, "context": 64,
    "batch_tokens": 256, "lr": 1e-2,
}  # fmt: skip


def test_it_learns_and_writes_a_folder_that_loads(tmp_path: Path) -> None:
    steps: list[dict] = []
    report = pretrain(TEXTS, out=tmp_path / "new" / "base", steps=80, log=steps.append, **SMALL)
    first, last = steps[0]["loss"], report["train_nats_per_token"]
    assert first == pytest.approx(math.log(report["vocabulary"]), rel=0.05)
    assert last < first / 2
    assert [s["step"] for s in steps] == list(range(1, 81))
    assert set(report["validation_nats_per_token"]) == {"en", "de"}
    # The held-out sentences are new combinations of known words: well below a uniform guess.
    assert max(report["validation_nats_per_token"].values()) < first / 2
    assert json.loads((tmp_path / "new" / "base" / "training.json").read_text()) == report

    model, tokenizer = load_backbone(str(tmp_path / "new" / "base"))
    assert model.config.model_type == "llama" and model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == report["parameters"]
    assert tokenizer.convert_tokens_to_ids(["<2en>", "<2de>"]) == [4, 5]
    ids = torch.tensor([tokenizer("The dog sings now.").input_ids])
    with torch.no_grad():
        assert float(model(ids, labels=ids).loss) < first / 2
    # A tag says which language follows: "D…" after <2de>, "T…" after <2en>.
    for tag, word in (("<2de>", "D"), ("<2en>", "The")):
        start = torch.tensor([[1, tokenizer.convert_tokens_to_ids(tag)]])
        generated = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=60)[
            0
        ]
        assert tokenizer.decode(generated, skip_special_tokens=True).startswith(word)
        assert int(generated[-1]) == tokenizer.eos_token_id


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> torch.Tensor:
        pretrain(TEXTS, out=tmp_path / name, steps=3, seed=seed, **SMALL)
        return load_backbone(str(tmp_path / name))[0].model.embed_tokens.weight

    one, same, other = made("a", 1), made("b", 1), made("c", 2)
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("family", ["gemma2", "bloom"])
def test_other_families_and_plain_collections(family: str, tmp_path: Path) -> None:
    out = tmp_path / family
    report = pretrain(iter(TEXTS["de"]), out=out, steps=2, family=family, dtype="float16", **SMALL)
    assert list(report["validation_nats_per_token"]) == ["text"]
    model = load_backbone(str(out), dtype="checkpoint")[0]
    assert (model.config.model_type, model.dtype) == (family, torch.float16)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(FileExistsError, match="is not overwritten: give another"):
        pretrain(TEXTS, out=tmp_path / "base", steps=1, **SMALL)
    assert list((tmp_path / "base").iterdir()) == []


def test_a_crash_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining.json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain(TEXTS, out=tmp_path / "base", steps=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    steps: list[dict[str, float]] = []
    with pytest.raises(
        RuntimeError, match=r"the \w+ is not finite \(step [2-9], learning rate 1e\+30\).*base\.lr"
    ):
        pretrain(TEXTS, out=tmp_path / "base", **SMALL | {"steps": 9, "lr": 1e30}, log=steps.append)
    assert list(tmp_path.iterdir()) == []
    assert all(math.isfinite(step["loss"]) for step in steps)


def test_weights_that_the_precision_cannot_hold_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(model: Any, *_: object) -> None:
        model.model.norm.weight.data.fill_(1e5)

    monkeypatch.setattr(pretraining, "reinitialise", grow)
    with pytest.raises(ValueError, match=r"base in float16 is not written.*model\.norm\.weight"):
        pretrain(TEXTS, out=tmp_path / "base", steps=1, dtype="float16", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "changes", "sentence"),
    [
        ({"en": ["only one", "only one", " "]}, {}, "language en has 1 distinct texts"),
        (TEXTS, {"steps": 0}, "takes steps"),
        (TEXTS, {"tagged": 1.5}, "tagged from 0 to 1"),
        (TEXTS, {"dtype": "auto"}, "dtype=auto does not exist"),
        (TEXTS, {"family": "lama"}, "did you mean llama"),
        (TEXTS, {"hidden": 33}, "hidden a multiple of"),
        (TEXTS, {"vocabulary": 100}, "vocabulary must be above"),
    ],
)
def test_what_cannot_work_is_said(texts, changes: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        pretrain(texts, out=tmp_path / "base", **(SMALL | {"steps": 1} | changes))


def test_copies_of_a_held_out_text_are_not_trained_on() -> None:
    texts = [f"text {i % 60}" for i in range(600)]
    train, held_out = pretraining._hold_out("en", texts)
    assert len(held_out) == 1 and len(train) == 590
    assert not set(train) & set(held_out)


def documents(context: int, tagged: float = 0.0) -> tuple[Documents, list[list[int]]]:
    """Documents of many lengths, and the token ids of each."""
    tokenizer = train_tokenizer(TEXTS["en"], 300, ["<2en>"])
    texts = [" ".join(["cat"] * (1 + i % 40)) for i in range(200)]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    draw = np.random.default_rng(0)
    made = Documents.encode({"en": texts}, tokenizer, context, draw, tagged)
    return made, [[1, *row, 2] for row in ids]


def rows_of(made: Documents, batch_tokens: int) -> list[list[int]]:
    results = []
    for ids, labels in made.epoch(batch_tokens, np.random.default_rng(1)):
        assert ids.numel() <= batch_tokens or len(ids) == 1
        assert torch.equal(ids[labels != -100], labels[labels != -100])
        results += [row[row != -100].tolist() for row in labels]
    return results


def test_an_epoch_holds_every_document_once_alone_in_its_row() -> None:
    made, wanted = documents(context=1000)
    assert sorted(rows_of(made, 512)) == sorted(wanted)


def test_rows_of_a_batch_are_of_similar_length() -> None:
    made, wanted = documents(context=1000)
    slots = sum(ids.numel() for ids, _ in made.epoch(512, np.random.default_rng(1)))
    assert 1 - sum(map(len, wanted)) / slots < 0.1


def test_long_documents_are_cut_so_that_every_token_is_predicted_once() -> None:
    made, wanted = documents(context=8)
    rows = rows_of(made, 512)
    assert max(map(len, rows)) == 8
    assert sum(len(row) - 1 for row in rows) == sum(len(row) - 1 for row in wanted)
    assert sum(row[-1] == 2 for row in rows) == len(wanted)


def test_the_asked_share_of_documents_begins_with_its_tag() -> None:
    made, _ = documents(context=1000, tagged=0.5)
    tagged = sum(row[:2] == [1, 4] for row in rows_of(made, 512))
    assert 70 < tagged < 130


def test_tags_that_no_text_had_can_be_told_apart(tmp_path: Path) -> None:
    texts = {"aa": ["one two three"] * 3 + ["two four"], "bb": ["un deux trois", "deux quatre"]}
    sizes = {"vocabulary": 300, "layers": 1, "hidden": 32, "ffn": 32, "heads": 2, "steps": 30}
    for tagged in (0, 1):
        pretrain(texts, out=tmp_path / str(tagged), tagged=tagged, tags=["<2cc>"], **sizes)
    unread, read = (load_backbone(str(tmp_path / name), dtype="float32") for name in "01")
    ids = unread[1].convert_tokens_to_ids(["<2aa>", "<2bb>", "<2cc>"])
    weight = unread[0].get_input_embeddings().weight.detach()
    drawn = (torch.randn(3, 32, generator=torch.Generator().manual_seed(0))).to(weight)
    same = torch.nn.functional.cosine_similarity(weight[ids], drawn)
    torch.testing.assert_close(same, torch.ones(3))
    learned = read[0].get_input_embeddings().weight.detach()[ids]
    same = torch.nn.functional.cosine_similarity(learned, drawn[[0, 0, 0]])
    assert same[2] > 0.999, "the only tag that no text had is the first one drawn"
    assert same[:2].abs().max() < 0.9, "what was learned stays"
