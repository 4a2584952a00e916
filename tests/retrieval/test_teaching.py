"""Training on prompts that show matches, and what it says of itself to whoever shows some later."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import DATA, MODEL, checkpoint, config, folders, record, train

from polylect.cli import run
from polylect.data.batch import IGNORED, TranslationBatch
from polylect.data.datamodule import TranslationData
from polylect.data.prompt import template
from polylect.files import write_text
from polylect.models.backbone import tiny_backbone
from polylect.programs.evaluate import main
from polylect.retrieval.memory import Memory
from polylect.retrieval.prompting import teach_matches
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import Translator

CORPUS = {"kind": "tongues", "split": "train", "size": 80}
SHOWN = ["memory.corpus=train", "memory.threshold=0.3"]


def lessons(memory: Memory | None, **changes: Any) -> TranslationData:
    """Data of two directions and monolingual text whose training examples show matches."""
    settings = {
        "directions": ["en-de", "en-hi", "fr"],
        "train": CORPUS,
        "val": {"kind": "tongues", "split": "dev", "size": 8},
        "template": "tag",
        "tokens_per_batch": 2000,
        "max_length": 200,
    }
    data = TranslationData(**(settings | changes))
    data.set_backbone(*tiny_backbone())
    data.setup("fit")
    if memory is not None:
        teach_matches(data, memory)
    return data


def rows(batch: TranslationBatch) -> list[tuple[str, str, list[int], list[int]]]:
    """Direction, source, ids of the prompt and ids that are learned, row by row."""
    read = batch.attention_mask.bool() & (batch.labels == IGNORED)
    learned = batch.labels != IGNORED
    return [
        (direction, source, ids[prompt].tolist(), ids[target].tolist())
        for direction, source, ids, prompt, target in zip(
            batch.directions, batch.sources, batch.input_ids, read, learned, strict=True
        )
    ]


def test_training_examples_show_their_matches_and_never_themselves() -> None:
    memory = Memory(corpus=CORPUS, threshold=0.3)
    data, judge = lessons(memory), Memory(corpus=CORPUS, threshold=0.3)
    tag, tokenizer, seen = template("tag"), data.tokenizer, 0
    targets = {s.source: s.target for d in ("en-de",) for s in stored(data, d)}
    for batch in data.training_stream(12):
        for direction, source, prompt, learned in rows(batch):
            bare = tag.encode(tokenizer, source or None, direction)
            if direction == "fr":
                assert prompt == bare
                continue
            matches = judge.find(source, direction)
            assert all(match.source != source for match in matches)
            shown = [(m.source, m.target) for m in reversed(matches)]
            while shown:
                ids = tag.encode_many(tokenizer, [source], [direction], [shown])[0]
                if len(ids) + len(learned) <= 200:
                    break
                shown = shown[1:]
            assert prompt == (ids if shown else bare)
            seen += bool(shown)
            if direction == "en-de":
                assert learned == tag.encode_target(tokenizer, targets[source], direction)
    assert seen > 40
    assert memory.counts["en-de"]["same"] == memory.counts["en-de"]["sentences"]


def stored(data: TranslationData, direction: str) -> list[Any]:
    store = data.pairs(direction, "train")
    return [store[i] for i in range(len(store))]


@pytest.mark.parametrize(
    ("settings", "length", "sentence"),
    [
        ({"threshold": 1}, 200, "80 in all, none is like any in the memory at memory.threshold=1"),
        (
            {"threshold": 0},
            60,
            "80 have matches, and none has room for one within data.max",
        ),
        ({"threshold": 0, "max_length": 9}, 200, "=200 and memory.max_length=9 tokens: raise"),
    ],
)
def test_a_memory_that_would_never_be_shown_is_refused(
    settings: dict[str, Any], length: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        lessons(Memory(corpus=CORPUS, **settings), max_length=length, directions=["en-de"])


def test_a_cache_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.cache has prompts without matches"):
        lessons(Memory(corpus=CORPUS), cache=str(tmp_path / "cache"))


def test_a_share_of_the_sentences_shows_matches_the_same_ones_each_time() -> None:
    share = Memory(corpus=CORPUS, threshold=0, share=0.4)
    data = lessons(share, max_length=900, tokens_per_batch=4000)
    prompts = [data.examples("en-de", "train") for _ in range(2)]
    assert prompts[0] == prompts[1]
    bare = lessons(None).examples("en-de", "train")
    longer = [len(e.prompt) > len(b.prompt) for e, b in zip(prompts[0], bare, strict=True)]
    assert 0.2 < sum(longer) / len(longer) < 0.6
    assert [e.prompt for e, more in zip(prompts[0], longer, strict=True) if not more] == [
        b.prompt for b, more in zip(bare, longer, strict=True) if not more
    ]
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=r"memory\.share must be above 0 and at most 1"):
            Memory(corpus=CORPUS, share=wrong)


def test_no_example_is_lost_to_its_matches_and_threads_change_nothing() -> None:
    plain, given = (
        lessons(memory, max_length=150).training_stream(6)
        for memory in (None, Memory(corpus=CORPUS, threshold=0))
    )
    assert len(list(plain)) == len(list(given)) == 6
    assert sum(given.report()["too_long"].values()) == sum(plain.report()["too_long"].values())
    batches = [
        [batch.input_ids.tolist() for batch in data.training_stream(6)]
        for data in (
            lessons(Memory(corpus=CORPUS, share=0.5), num_workers=workers) for workers in (0, 3)
        )
    ]
    assert batches[0] == batches[1]


def test_validation_shows_them_in_the_loss_and_not_in_translations() -> None:
    data, bare = lessons(Memory(corpus=CORPUS, threshold=0.2)), lessons(None)
    assert data.examples("en-de", "val") != bare.examples("en-de", "val")
    assert data.prompts("en-de", "val") == bare.prompts("en-de", "val")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [*SHOWN, "memory.share=0.7", "evaluate=true", "trainer.max_steps=2"]
    return train(tmp_path_factory.mktemp("taught"), *settings)


def test_a_run_notes_that_it_has_learnt_from_examples(taught: Path, tiny_run: Path) -> None:
    run_record = record(taught)
    counts = run_record["metrics"]["memory"]["counts"]
    assert run_record["config"]["memory"]["corpus"] == "train"
    assert all(0 < c["matched"] <= c["sentences"] for c in counts.values()) and len(counts) == 2
    assert checkpoint(taught)["polylect"]["about"]["config"]["memory"]["share"] == 0.7
    for folder, corpus in ((taught, "train"), (tiny_run, None)):
        about = json.loads((folder / "adapters" / "en-de" / "polylect.json").read_text("utf-8"))
        assert about["config"]["memory"]["corpus"] == corpus
    assert "memory" not in record(tiny_run)["metrics"]


def test_a_dry_run_shows_what_is_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown in ([], [*SHOWN, "memory.share=1", "memory.threshold=0.1", "data.max_length=400"]):
        settings = [*MODEL, *DATA, *shown, "dry_run=true", "evaluate=false", f"runs={tmp_path}"]
        assert run(["train", *settings]) == 0
        most = max(line.count("<2de>") for line in capsys.readouterr().out.splitlines())
        assert most == (4 if shown else 1)


@pytest.mark.parametrize("kind", ["run", "checkpoint", "lag", "translate"])
def test_what_was_trained_without_examples_is_shown_none_unless_one_insists(
    kind: str, taught: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "The cat sleeps.\ten-de\n")
    write_text(tmp_path / "memory.tsv", "The dog sleeps.\tDer Hund schläft.\n")
    memory = [f"memory.corpus={tmp_path}/memory.tsv", "memory.threshold=0.3"]
    scored = ["evaluate", f"runs={tmp_path}", "limit=1", "metrics=[chrf++]", *memory]
    few = [*MODEL, "data=tongues", *DATA, "+generation.limit=3"]

    def given(folder: Path) -> list[str]:
        return {
            "run": [*scored, f"run={folder}"],
            "checkpoint": [*scored, f"run={folder}/checkpoints/last.ckpt"],
            "lag": [*scored, *few, "strategy=lag", f"strategy.library={folder}/adapters"],
            "translate": ["translate", f"run={folder}", f"input={tmp_path}/in.txt", *memory],
        }[kind]

    assert run(given(taught)) == 0
    assert run(given(tiny_run)) == 2
    error = capsys.readouterr().err
    assert "en-de was trained on prompts without examples" in error
    assert "memory.untrained=true" in error
    assert run([*given(tiny_run), "memory.untrained=true"]) == 0


def test_a_base_as_it_is_may_be_shown_examples(tmp_path: Path) -> None:
    few = [*DATA, "+generation.limit=3", "limit=1", "metrics=[chrf++]", f"runs={tmp_path}"]
    main(config("evaluate", *MODEL, "data=tongues", *few, *SHOWN))
    (folder,) = folders(tmp_path)
    assert record(folder)["metrics"]["memory"]["counts"]["en-de"]["sentences"] == 1


def test_each_direction_of_a_library_answers_for_itself(
    taught: Path, tiny_run: Path, tmp_path: Path
) -> None:
    write_text(tmp_path / "memory.tsv", "The dog sleeps.\tDer Hund schläft.\n")
    made = Translator.from_base(*tiny_backbone(hidden=32), template="tag", device="cpu")
    assert isinstance(made.module, LoRALibrary)
    made.load_adapter(taught / "adapters" / "en-de")
    made.load_adapter(tiny_run / "adapters" / "en-fr")
    made.remember(Memory(corpus=str(tmp_path / "memory.tsv")))
    assert len(made.module.prompt("The cat sleeps.", "en-de").prompt) > 20
    with pytest.raises(ValueError, match="en-fr was trained on prompts without examples"):
        made.translate(["The cat sleeps."], "en-fr")
    made.remember(Memory(corpus=str(tmp_path / "memory.tsv"), untrained=True))
    made.module.prompt("The cat sleeps.", "en-fr")
