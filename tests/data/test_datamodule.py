from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from polylect.data.datamodule import TranslationData
from polylect.models.backbone import tiny_backbone


def make(root: Path, **changes: Any) -> TranslationData:
    settings: dict[str, Any] = {
        "directions": ["en-de", "ta-en", "de"],
        "train": "garden.{lang}",
        "val": {"*": {"kind": "aligned", "path": "garden.{lang}", "stop": 2}, "de": None},
        "template": "tag",
        "tokens_per_batch": 600,
        "max_length": 300,
        "filters": {"overlap": False},
        "root": str(root),
    }
    return TranslationData(**(settings | changes))


def test_reading_reports_counts_and_hashes(files: Path) -> None:
    data = make(files, filters={"overlap": True})
    data.setup("fit")
    report = data.report["train"]["en-de"]
    assert report["read"] == 6 and report["kept"] == 4 and report["dropped"] == {"overlap": 2}
    assert report["sha256"] == data.pairs("en-de", "train").sha256
    # The German sentences of the en-de dev set are held out of German text, too.
    assert data.report["train"]["de"]["dropped"] == {"overlap": 2}


def test_each_stage_reads_what_it_needs(files: Path) -> None:
    data = make(files, test="garden.{lang}")
    data.setup("validate")
    assert set(data.report) == {"val"}
    data.setup("fit")
    assert set(data.report) == {"val", "train"}
    data.setup("test")
    data.setup(None)
    assert set(data.report) == {"val", "train", "test"}
    held = make(files, test="{pair}/dev.{lang}.gz", filters={}, directions=["en-de"])
    held.setup("fit")  # the filter "overlap" needs the test set
    assert set(held.report) == {"val", "test", "train"}


def test_several_corpora_for_a_direction(files: Path) -> None:
    data = make(
        files,
        directions=["en-de"],
        train=["garden.{lang}", "kitchen.jsonl", "kitchen.tmx", {"kind": "tongues", "size": 20}],
    )
    data.setup("fit")
    report = data.report["train"]["en-de"]
    assert report["read"] == 6 + 2 + 3 + 20 and report["kept"] == 6 + 2 + 2 + 20
    assert report["dropped"] == {"other_languages": 1}  # a unit of the TMX file
    names = [part["corpus"] for part in report["corpora"]]
    assert names == ["garden.{lang}", "kitchen.jsonl", "kitchen.tmx", "tongues"]
    for key in ("read", "kept"):
        assert sum(part[key] for part in report["corpora"]) == report[key]


def test_validation_batches_are_by_direction_and_complete(
    files: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = make(files, tokenizer=tokenizer, max_rows=1)
    data.setup("fit")
    loaders = data.val_dataloader()
    assert data.directions_of("val") == ("en-de", "ta-en") and len(loaders) == 2
    for direction, loader in zip(data.directions_of("val"), loaders, strict=True):
        batches = list(loader)
        assert len(loader) == len(batches) == 2
        assert all(set(batch.directions) == {direction} for batch in batches)
        lengths = [batch.input_ids.shape[1] for batch in batches]
        assert lengths == sorted(lengths, reverse=True)
        pairs = {(b.sources[0], b.references[0]) for b in batches}
        store = data.pairs(direction, "val")
        assert pairs == {(store[i].source, (store[i].target,)) for i in range(2)}


def test_long_validation_examples_are_counted_but_prompts_are_whole(
    files: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(files, tokenizer=tokenizer, directions=["en-de"], max_length=64)
    data.setup("fit")
    (loader,) = data.val_dataloader()
    assert data.report["val"]["en-de"]["too_long"] == 1 and sum(b.rows for b in loader) == 1
    assert "1 of 2 val examples of 'en-de' have more than 64 tokens" in caplog.text
    prompts = data.prompts("en-de", "val")
    assert [p.source for p in prompts] == [p.source for p in data.examples("en-de", "val")]
    assert all(not p.target and p.references for p in prompts)
    assert tokenizer.decode(prompts[1].prompt) == "<s>A cat sleeps on the warm wall.<2de>"
    assert len(data.prompts("en-de", "train", 3)) == 3
    short = make(files, tokenizer=tokenizer, directions=["en-de"], max_length=5)
    short.setup("fit")
    with pytest.raises(ValueError, match="all 2 val examples of 'en-de' have more than"):
        short.val_dataloader()


def test_no_example_is_longer_than_the_model_takes(
    files: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = make(files, tokenizer=tokenizer, max_length=300)
    data.setup("fit")
    data.set_backbone(tiny_backbone(context=300)[0], tokenizer)
    data.check_context()
    assert data.val_dataloader() and data.training_stream(1)
    data.set_backbone(tiny_backbone("bloom")[0], tokenizer)  # its positions have no end
    data.check_context()
    data.set_backbone(tiny_backbone(context=299)[0], tokenizer)
    sentence = r"data\.max_length=300 is more than the 299 tokens .* set data\.max_length=299"
    for check in (data.check_context, data.val_dataloader, lambda: data.training_stream(1)):
        with pytest.raises(ValueError, match=sentence):
            check()


def test_references_reach_the_prompts(files: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    two = {"references": ["garden.{lang}", "garden.{lang}1"]}
    test = {"kind": "aligned", "path": "garden.{lang}", **two}
    data = make(files, directions=["de-en"], test=test, val=None, tokenizer=tokenizer)
    data.setup("test")
    assert data.prompts("de-en", "test")[1].references == (
        "A cat sleeps on the warm wall.",
        "A cat is asleep on the warm wall.",
    )


@pytest.mark.parametrize(
    ("text", "setting", "filters", "message"),
    [
        ("a\n\nc\n", "val", {}, r"x.de:2: the source is empty, which a val set must not have"),
        ("a\n\nc\n", "train", {"empty": False}, r"x.de:2: the source is empty; .*empty=true"),
        ("\n\n", "train", {}, r"train of 'de-en': none of 2 pairs is left; .* empty 2"),
        ("", "train", {}, r"x.en:1: the corpus has no rows$"),
    ],
)
def test_empty_sides(
    text: str, setting: str, filters: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.de").write_text(text)
    (tmp_path / "x.en").write_text("a\n" * text.count("\n"))
    corpora = {"train": None, "val": None, setting: "x.{lang}"}
    data = make(tmp_path, directions=["de-en"], filters=filters, **corpora)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_empty_sides_are_dropped_by_default(tmp_path: Path) -> None:
    (tmp_path / "x.de").write_text("a\n\nc\n")
    data = make(tmp_path, directions=["de"], train="x.{lang}", val=None, filters=None)
    data.setup("fit")
    assert data.report["train"]["de"]["dropped"] == {"empty": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": "en-de"}, "data.directions must be a list"),
        ({"directions": []}, "data.directions must be a list"),
        ({"directions": ["en-de", "en-de"]}, "twice"),
        ({"directions": ["en-xq"]}, "unknown language code 'xq'"),
        ({"tokens_per_batch": 0}, "data.tokens_per_batch must be at least 1, got 0"),
        ({"max_length": 601}, r"data.max_length \(601\) is above data.tokens_per_batch \(600\)"),
        ({"temperature": 0}, "data.temperature must be above 0"),
        ({"mixing": "mix"}, "data.mixing must be mixed or by_direction, got 'mix'"),
        ({"template": "plan"}, "template=plan does not exist; did you mean plain"),
        ({"filters": {"lenght_ratio": 2}}, "filters=lenght_ratio does not exist"),
        ({"train": {"en-xq": "x"}}, "train: 'en-xq' is neither"),
        ({"seed": -1}, "data.seed must be at least 0"),
    ],
)
def test_bad_arguments_are_found_before_anything_is_read(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(Path("nowhere"), **change)


def test_what_is_missing_is_said(files: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make(files)
    with pytest.raises(ValueError, match=r"data.setup has not read the train corpora yet"):
        data.pairs("en-de", "train")
    data.setup("fit")
    with pytest.raises(ValueError, match="there is no val corpus of direction 'de'"):
        data.pairs("de", "val")
    with pytest.raises(ValueError, match=r"data.tokenizer is not set"):
        data.examples("en-de", "train")
    with pytest.raises(ValueError, match=r"set trainer.max_steps to at least 1"):
        data.train_dataloader()
    data.trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, barebones=True)
    with pytest.raises(ValueError, match=r"set trainer.max_steps to at least 1"):
        data.train_dataloader()


class Watcher(L.LightningModule):
    """A model of one parameter that writes down what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []
        self.validated: list[str] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.input_ids.tolist())
        return self.weight * float(batch.target_tokens)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append(batch.directions[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(data: TranslationData, steps: int, resume: Path | None = None, **options: Any) -> Any:
    settings = {
        "max_steps": steps,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    trainer, model = L.Trainer(**(settings | options)), Watcher()
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return trainer, model


class Keep(L.Callback):
    """Saves where ModelCheckpoint does, without its warnings about folders that are there."""

    def __init__(self, folder: Path, accumulate: int) -> None:
        self.folder, self.accumulate = folder, accumulate

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        batches = trainer.fit_loop.total_batch_idx + 1
        if batches % (7 * self.accumulate) == 0:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


def run_data(files: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> TranslationData:
    # Pools of 6 + 6 + 6 examples: the run goes through many of them.
    return make(files, tokenizer=tokenizer, **changes)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_resumes_with_exactly_the_next_batches(
    accumulate: int, files: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    options = {"accumulate_grad_batches": accumulate, "default_root_dir": tmp_path}
    whole_data = run_data(files, tokenizer)
    trainer, whole = fit(whole_data, 20, **options)
    assert len(whole.seen) == 20 * accumulate and trainer.current_epoch <= 1
    # With validation in between; the run was to have 20 steps whenever it was interrupted.
    _, first = fit(
        run_data(files, tokenizer),
        20,
        callbacks=[Keep(tmp_path, accumulate)],
        val_check_interval=4,
        check_val_every_n_epoch=None,
        **options,
    )
    assert first.seen == whole.seen
    for step in (7, 14):
        data = run_data(files, tokenizer, num_workers=1)
        trainer, rest = fit(data, 20, tmp_path / f"step={step}.ckpt", **options)
        assert trainer.global_step == 20
        assert rest.seen == whole.seen[step * accumulate :]
        assert data.stream.report() == whole_data.stream.report()
    _, longer = fit(run_data(files, tokenizer), 24, tmp_path / "step=14.ckpt", **options)
    assert longer.seen[: len(rest.seen)] == rest.seen and len(longer.seen) == 10 * accumulate


def test_lightning_validates_and_trains_without_validation(
    files: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    _, model = fit(run_data(files, tokenizer), 4, val_check_interval=2)
    assert set(model.validated) == {"en-de", "ta-en"}
    _, model = fit(run_data(files, tokenizer, val=None), 4)
    assert len(model.seen) == 4 and not model.validated


def test_a_changed_setting_is_refused_on_resume(
    files: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer, _ = fit(run_data(files, tokenizer), 3)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"data.seed changed since"):
        fit(run_data(files, tokenizer, seed=9), 5, tmp_path / "x.ckpt")
