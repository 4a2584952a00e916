"""The detect program: from text to a neuron file, interrupted or not, and choices made anew."""

import csv
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import DATA, MODEL, config, folders, record
from omegaconf import OmegaConf
from torch import nn

from polylect.cli import run
from polylect.data.batch import collate, pad_id
from polylect.data.datamodule import TranslationData
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.library import base_fingerprint
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.models.backbone import tiny_backbone
from polylect.programs import detect as program
from polylect.run import awareness
from polylect.run.build import build_data
from polylect.strategies.loss import target_losses

SMALL = [*MODEL, *DATA, "data.tokens_per_batch=128"]


def begin(runs: Path, *overrides: str) -> None:
    program.main(config("detect", *SMALL, f"runs={runs}", *overrides))


def detect(runs: Path, *overrides: str) -> Path:
    """Detect to the end; the run folder."""
    before = folders(runs)
    begin(runs, *overrides)
    (made,) = folders(runs) - before
    return made


def neurons(folder: Path) -> NeuronFile:
    return NeuronFile.read(folder / program.FILE)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Nor from the fixtures of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polylect.plots.save_all", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished detection; only for reading."""
    return detect(tmp_path_factory.mktemp("runs"))


def test_loggers_are_told_what_was_found(done: Path, tmp_path: Path) -> None:
    scores = f"scores={done / program.FILE}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(["detect", scores, "logger=csv"]) == 0
    (folder,) = (tmp_path / "runs" / "detect").iterdir()
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    nats = neurons(done).about["nats_per_token"]
    for direction, counts in neurons(folder).counts().items():
        assert {kind: float(row[f"neurons/{kind}/{direction}"]) for kind in counts} == counts
        assert float(row[f"nats_per_token/{direction}"]) == pytest.approx(nats[direction])


def test_a_detection_leaves_a_file_a_record_and_nothing_else(done: Path) -> None:
    assert {path.name for path in done.iterdir()} == {program.FILE, "record.json"}
    file, run_record = neurons(done), record(done)
    assert file.directions == ("en-de", "en-fr")
    assert file.layers == (0, 1)
    assert file.selected.all()
    assert file.general.sum(1).tolist() == [57, 57]  # of 64
    assert run_record["status"] == "done"
    assert run_record["metrics"]["neurons"] == file.counts()
    assert run_record["data"]["val"]["en-de"]["measured"] == 6
    assert run_record["metrics"]["nats_per_token"]["en-fr"] == pytest.approx(
        6.2, abs=0.5
    )  # log 512
    assert file.about["tokens"] == run_record["metrics"]["tokens"]
    assert file.about["measured"]["split"] == "val"
    assert file.about["chosen"]["categories"]["rho"] == 0.9


def test_the_file_belongs_to_its_base(done: Path) -> None:
    neurons(done).check_base(base_fingerprint(tiny_backbone(hidden=32)[0]))
    with pytest.raises(ValueError, match="another base model"):
        neurons(done).check_base(base_fingerprint(tiny_backbone(hidden=32, seed=1)[0]))


def test_the_scores_are_those_of_sentences_measured_one_by_one(done: Path) -> None:
    model, tokenizer = tiny_backbone(hidden=32)
    data = TranslationData(
        directions=["en-de", "en-fr"],
        val={"kind": "tongues", "split": "dev", "size": 6},
        template="tag",
        tokenizer=tokenizer,
    )
    data.setup("validate")
    meter = AwarenessMeter([layer.mlp.down_proj for layer in model.model.layers], 2)
    for i, direction in enumerate(data.directions):
        for example in data.examples(direction, "val"):
            awareness.add_batch(meter, model, i, collate([example], pad_id(tokenizer), "right"))
    file = neurons(done)
    for side, scores in meter.awareness().items():
        assert scores.min() > 0
        torch.testing.assert_close(file.awareness[side].double(), scores, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(file.activation.double(), meter.activation(), atol=1e-6, rtol=0)
    torch.testing.assert_close(file.relevance.double(), meter.relevance(), rtol=1e-3, atol=0)
    assert file.about["tokens"] == meter.tokens()


def test_bfloat16_finds_nearly_the_same(done: Path, tmp_path: Path) -> None:
    folder = detect(tmp_path, "precision=bf16-mixed")
    exact, rounded = neurons(done), neurons(folder)
    assert rounded.base_fingerprint == exact.base_fingerprint, "the base is not rounded"
    assert rounded.about["measured"]["precision"] == "bf16-mixed"
    for side, scores in exact.awareness.items():
        both = torch.stack([scores.flatten(), rounded.awareness[side].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.99 and not torch.equal(*both)


class Interruption:
    """Counts some batches in and then stops the program."""

    def __init__(self, after: int, number: int | None = None) -> None:
        self.left, self.number = after, number
        self.add_batch = awareness.add_batch

    def __call__(self, *arguments: Any, **labels: bool) -> tuple[float, int]:
        if self.left == 0:
            if self.number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.number)
        self.left -= 1
        return self.add_batch(*arguments, **labels)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detection that has saved its sums twice and then lost a batch."""
    with monkeypatch.context() as patch:
        patch.setattr(awareness, "add_batch", Interruption(5))
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, "save_every=2")
    (folder,) = folders(tmp_path)
    return folder


def test_an_interrupted_detection_goes_on_to_the_same_bytes(done: Path, interrupted: Path) -> None:
    assert {path.name for path in interrupted.iterdir()} == {program.PARTIAL, "record.json"}
    assert record(interrupted)["status"] == "interrupted"
    partial = torch.load(interrupted / program.PARTIAL, weights_only=True)
    assert partial["batches"] == 4
    before = sorted(p.stat().st_mtime_ns for p in interrupted.iterdir())
    folder = detect(interrupted.parents[1], f"resume={interrupted}", "save_every=2")
    assert {path.name for path in folder.iterdir()} == {program.FILE, "record.json"}
    assert (folder / program.FILE).read_bytes() == (done / program.FILE).read_bytes()
    assert sorted(p.stat().st_mtime_ns for p in interrupted.iterdir()) == before


def test_nothing_is_measured_twice_after_an_interruption(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Interruption(-1)
    monkeypatch.setattr(awareness, "add_batch", counter)
    detect(interrupted.parents[1], f"resume={interrupted}")
    left = sum(map(len, batches())) - 4
    assert -1 - counter.left == left


def batches() -> list[Any]:
    data = build_data(config("detect", *SMALL))
    data.tokenizer = tiny_backbone(hidden=32)[1]
    data.setup("validate")
    return data.val_dataloader()


@pytest.mark.parametrize(
    ("part", "words"),
    [("loss", "the loss of en-fr is not finite"), ("gradient", r"measured \(awareness has NaN")],
)
def test_what_is_not_finite_is_not_detected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
    words: str,
) -> None:
    class Spoil(torch.autograd.Function):
        """The loss stays, and its gradient is NaN."""

        @staticmethod
        def forward(ctx: Any, losses: torch.Tensor) -> torch.Tensor:
            return losses.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("nan")

    def losses(backbone: Any, batch: Any) -> Any:
        target_loss, rows = target_losses(backbone, batch)
        if batch.directions[0] == "en-fr":
            target_loss = target_loss * float("nan") if part == "loss" else Spoil.apply(target_loss)
        return target_loss, rows

    monkeypatch.setattr(awareness, "target_losses", losses)
    assert run(["detect", *SMALL, f"runs={tmp_path}", "save_every=1"]) == 2
    stderr = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(words, stderr) and "model.dtype=float32" in stderr
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert not (folder / program.FILE).exists()
    partial = torch.load(folder / program.PARTIAL, weights_only=True)
    assert all(t.isfinite().all() for t in partial["meter"].values())


def test_sigterm_ends_with_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awareness, "add_batch", Interruption(1, signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        begin(tmp_path, "save_every=1")
    assert stop.value.code == 128 + signal.SIGTERM
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "interrupted"


def test_resuming_something_else_is_refused(interrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sentences was 512 and is 4, tokens_per_batch was 128"):
        begin(tmp_path, f"resume={interrupted}", "sentences=4", "data.tokens_per_batch=256")
    with pytest.raises(ValueError, match="something else, base_fingerprint was"):
        begin(tmp_path, f"resume={interrupted}", "+model.seed=1")
    assert folders(tmp_path) == {interrupted}


def test_a_file_of_sums_that_is_none_is_refused(interrupted: Path, tmp_path: Path) -> None:
    whole = torch.load(interrupted / program.PARTIAL, weights_only=True)
    trace = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> object:
            return open, (str(trace), "w")

    for content, sentence in (
        ([1], "is no unfinished detection: begin anew"),
        ({"job": whole["job"]}, "is no unfinished detection"),
        (whole | {"evil": Evil()}, r"partial\.pt is not read: it holds more than tensors"),
    ):
        folder = tmp_path / "before"
        folder.mkdir(exist_ok=True)
        torch.save(content, folder / program.PARTIAL)
        with pytest.raises(ValueError, match=sentence):
            begin(tmp_path, f"resume={folder}")
    assert not trace.exists()


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a model or data now, fails."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("this was to be left alone")

    monkeypatch.setattr("polylect.run.build.build_data", fail)
    monkeypatch.setattr("polylect.models.backbone.tiny_backbone", fail)


def chosen_anew(done: Path, runs: Path, *overrides: str) -> NeuronFile:
    return neurons(detect(runs, f"scores={done / program.FILE}", *overrides))


@pytest.mark.usefixtures("blind")
def test_scores_are_used_again_without_model_or_data(done: Path, tmp_path: Path) -> None:
    again = detect(tmp_path, f"scores={done / program.FILE}")
    assert (again / program.FILE).read_bytes() == (done / program.FILE).read_bytes()
    assert record(again)["status"] == "done"


@pytest.mark.usefixtures("blind")
def test_placebo_and_layers_are_chosen_anew(done: Path, tmp_path: Path) -> None:
    file = neurons(done)
    placebo = chosen_anew(done, tmp_path, "categories.rule=random", "seed=3")
    assert placebo.counts() == file.counts()
    assert not torch.equal(placebo.general, file.general)
    assert placebo.base_fingerprint == file.base_fingerprint
    one = chosen_anew(done, tmp_path, "layers.rule=last", "layers.k=1", "categories.share=0.5")
    assert one.layers == (1,)
    assert one.counts()["en-de"]["general"] == 28  # of the 32 most aware
    listed = chosen_anew(done, tmp_path, "layers.rule=[1]")
    assert torch.equal(listed.specific[0], file.specific[1])
    scalar = chosen_anew(done, tmp_path, "layers.form=scalar")
    assert not torch.equal(scalar.relevance, file.relevance)


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("rule", ["cv", "sum", "entropy"])
def test_every_rule_sorts_every_neuron(rule: str, done: Path, tmp_path: Path) -> None:
    file = chosen_anew(done, tmp_path, f"categories.rule={rule}")
    assert (file.general ^ file.specific.any(1)).all()
    assert file.general.sum(1).tolist() == [57, 57]


def test_positions_decide_which_scores_count(done: Path, tmp_path: Path) -> None:
    sides = [chosen_anew(done, tmp_path, f"categories.positions={p}") for p in ("source", "target")]
    assert not torch.equal(sides[0].general, sides[1].general)


def test_without_held_out_text_training_text_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = detect(tmp_path, "data.val=null", "sentences=3")
    assert "there is no val corpus of en-de, en-fr: the train corpora are measured" in (
        capsys.readouterr().out
    )
    assert neurons(folder).about["measured"]["split"] == "train"
    assert record(folder)["data"]["train"]["en-de"]["measured"] == 3


def test_the_command_prints_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", *SMALL, f"runs={tmp_path}", "model.family=bloom"]) == 0
    shown = capsys.readouterr().out.splitlines()
    (folder,) = folders(tmp_path)
    file = neurons(folder)
    assert shown[1] == "layers.k=4: the model has 2 layers."
    table = {line.split()[0]: line.split()[1:] for line in shown[-5:-1]}
    for direction, row in file.counts().items():
        assert table[direction] == [str(number) for number in row.values()]
    assert shown[-2] == f"layers 0 (D {float(file.relevance[:, 0].mean()):.3g}), 1 (last)"
    assert shown[-1] == f"neurons: {folder / program.FILE}"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"split": "test"}, "split must be train or val, got test"),
        ({"sentences": 0}, "sentences must be at least 1, got 0"),
        ({"save_every": 0}, "save_every must be at least 1, got 0"),
        ({"device": "tpu"}, "device=tpu"),
        ({"layers.rule": "relevent"}, "did you mean relevant"),
        ({"layers.rule": 3}, "a rule or a list of distinct layers from 0 on, got 3"),
        ({"layers.rule": [0, 7]}, "layers.rule names layer 7, and the model has layers 0 to 1"),
        ({"layers.k": 0}, "layers.k must be at least 1"),
        ({"layers.form": "vektor"}, "layers.form=vektor does not exist; did you mean vector"),
        ({"categories.rule": "sdt"}, "categories.rule=sdt does not exist; did you mean std"),
        ({"categories.rho": 2}, "categories.rho must be from 0 to 1, got 2"),
        ({"categories.positions": "prompt"}, "categories.positions=prompt does not exist"),
        ({"scores": "nowhere"}, "nowhere does not exist: `polylect detect` writes such a file"),
        ({"scores": "a", "resume": "b"}, "give scores or resume, not both"),
        ({"resume": "nowhere"}, "resume=nowhere has no partial.pt to go on from: begin anew"),
        ({"resume": "DONE"}, "it has ended, take scores="),
        ({"data.val": None, "data.train": None}, "no val corpus of en-de: give data.val=…"),
        ({"data.max_length": 2}, "all have more than data.max_length=2 tokens"),
        ({"data.template": "chat"}, "no chat template"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    changes: dict[str, Any], sentence: str, done: Path, tmp_path: Path
) -> None:
    cfg = config("detect", *SMALL, f"runs={tmp_path}")
    for key, value in changes.items():
        OmegaConf.update(cfg, key, str(done) if value == "DONE" else value)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence)):
        program.main(cfg)
    assert not folders(tmp_path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("layers.kk=2", "layers.kk does not exist; did you mean layers.k"),
        ("categories.rho=much", "config key categories.rho"),
        ("layers.rule=relevent", "layers.rule=relevent does not exist; did you mean relevant"),
    ],
)
def test_the_command_answers_a_mistake_in_one_sentence(
    override: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", f"runs={tmp_path}", override]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"polylect: {sentence}")


def test_a_model_of_no_known_family_is_named() -> None:
    model = nn.Module()
    model.config = SimpleNamespace(model_type="rwkv")
    with pytest.raises(ValueError, match=r"'rwkv' belongs to no known family .*where it keeps"):
        program._family(model)


def test_rows_of_modules_are_found_beside_or_without_neurons_and_sorted_anew(
    tmp_path: Path,
) -> None:
    overrides = ["neurons=[ffn,self_attn.q_proj,input_layernorm]", "layers.rule=[1]"]
    folder = detect(tmp_path, "data.directions=[de,fr]", *overrides)
    neuron_file = ModuleNeurons.read(folder / program.FILE)
    assert list(neuron_file.kinds) == ["ffn", "self_attn.q_proj", "input_layernorm"]
    assert neuron_file.any.directions == ("de", "fr")
    assert {file.layers for file in neuron_file.kinds.values()} == {(1,)}
    q = neuron_file.kinds["self_attn.q_proj"]
    assert q.general.shape == (1, 32)
    assert int(q.general.sum()) == 28  # floor(0.9 x 32)
    again = detect(
        tmp_path, f"scores={folder / program.FILE}", "neurons=rows", "categories.rho=0.7"
    )
    rows = ModuleNeurons.read(again / program.FILE)
    assert list(rows.kinds) == ["self_attn.q_proj", "input_layernorm"]
    assert rows.kinds["self_attn.q_proj"].general.sum(1).tolist() == [22, 22]


def test_an_interrupted_detection_of_rows_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = ["average=sentences", "label_shift=true", "pad_labels=true"]
    rows = ["neurons=rows", "data.directions=[de,fr]", *published]
    whole = detect(tmp_path / "whole", *rows)
    with monkeypatch.context() as patch:
        patch.setattr(awareness, "add_batch", Interruption(3))
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path / "runs", *rows, "save_every=1")
    (begun,) = folders(tmp_path / "runs")
    saved = torch.load(begun / program.PARTIAL, weights_only=True)
    assert saved["batches"] == 3
    assert {"rows.self_attn.q_proj", "rows.input_layernorm"} <= saved["meter"].keys()
    folder = detect(tmp_path / "runs", *rows, f"resume={begun}")
    assert (folder / program.FILE).read_bytes() == (whole / program.FILE).read_bytes()
    for other in ("label_shift=false", "average=tokens", "neurons=[self_attn.q_proj]"):
        with pytest.raises(
            ValueError, match=f"measuring something else, {other.partition('=')[0]}"
        ):
            begin(tmp_path / "runs", *rows, other, f"resume={begun}")


def test_a_file_of_sums_over_sentences_is_sorted_by_the_sums(tmp_path: Path) -> None:
    file = neurons(detect(tmp_path, "average=sentences"))
    assert file.is_sum
    assert torch.equal(file.scores(), sum(t.double() for t in file.awareness.values()))


def test_a_dry_run_counts_a_large_model_without_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = tiny_backbone("bloom", hidden=32)
    sizes = {"hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880}
    model.config.update(sizes)  # of BLOOM-7b1, which has 7,069,016,064 parameters
    model.config.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = ["model=local", f"model.path={tmp_path / 'base'}", "model.dtype=bfloat16"]
    settings = [*DATA, "data.directions=[de,fr]", "detection=landermt_fixed", "dry_run=true"]
    program.main(config("detect", *base, *settings, f"runs={tmp_path / 'runs'}"))
    shown = capsys.readouterr().out
    assert f"weights      {2 * 7_069_016_064 / 2**30:.2f} GiB" in shown
    assert "30 layers" in shown and "self_attention.query_key_value" in shown
    assert "text         2 directions, 12 sentences" in shown
    assert not (tmp_path / "runs").exists()


def test_layers_are_those_of_another_file(done: Path, tmp_path: Path) -> None:
    one = detect(tmp_path, f"scores={done / program.FILE}", "layers.rule=[1]")
    other = detect(tmp_path, "data.directions=[de,fr]", f"layers.rule={one / program.FILE}")
    assert neurons(other).layers == (1,)
    assert record(other)["config"]["layers"]["rule"] == [1]


def test_a_module_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neurons=self_attn.q_pro.*did you mean"):
        detect(tmp_path, "neurons=self_attn.q_pro")
