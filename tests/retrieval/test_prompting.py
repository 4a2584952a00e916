"""Matches in prompts: as the template writes them, within the room there is, in every program."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import DATA, MODEL, config, folders, record

from polylect.cli import run
from polylect.data.prompt import template
from polylect.files import write_text
from polylect.models.backbone import tiny_backbone
from polylect.programs.evaluate import main
from polylect.retrieval.memory import Memory
from polylect.retrieval.prompting import MemoryTemplate
from polylect.strategies.generation import Generation
from polylect.strategies.lora_switch import LoRASwitch
from polylect.translator import Translator

PAIRS = [
    ("the small house", "das kleine Haus"),
    ("the old house", "das alte Haus"),
    ("my old house", "mein altes Haus"),
]
ASKED = "my small house"  # as near to the first as to the third
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_backbone()[1]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with adapters of a tiny model, far from zero, as if trained with examples."""
    folder = tmp_path_factory.mktemp("run")
    module = LoRASwitch(directions=["en-de", "en-fr"], template="tag", rank=4)
    module.about = {"config": {"memory": {"corpus": "train"}}}
    module.set_backbone(*tiny_backbone(hidden=32))
    for group in module.parameter_groups():
        for parameter in group["params"]:
            torch.nn.init.normal_(parameter, std=0.3)
    module.export(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    write_text(tmp_path / "memory.tsv", "".join(f"{s}\t{t}\n" for s, t in PAIRS))
    return str(tmp_path / "memory.tsv")


def with_memory(name: str, corpus: str, room: int = 10**6, **settings: Any) -> MemoryTemplate:
    return MemoryTemplate(template(name), Memory(corpus=corpus, **settings), lambda _: room)


def test_plain_shows_whole_translations_the_best_last(tokenizer: Any, corpus: str) -> None:
    ids = with_memory("plain", corpus, matches=2).encode(tokenizer, ASKED, "en-de")
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "\n\n".join(
        f"Translate from English into German.\nEnglish: {source}\nGerman:{target}"
        for source, target in [
            ("my old house", " mein altes Haus"),
            ("the small house", " das kleine Haus"),
            (ASKED, ""),
        ]
    )


def test_tag_shows_rows_as_they_are_learned(tokenizer: Any, corpus: str) -> None:
    tag = template("tag")
    learned = [
        tag.encode(tokenizer, s, "en-de") + tag.encode_target(tokenizer, t, "en-de")
        for s, t in (PAIRS[2], PAIRS[0])
    ]
    ids = with_memory("tag", corpus, matches=2).encode(tokenizer, ASKED, "en-de")
    assert ids == [*learned[0], *learned[1], *tag.encode(tokenizer, ASKED, "en-de")]


def test_chat_shows_earlier_turns(corpus: str) -> None:
    tokenizer = tiny_backbone()[1]
    tokenizer.chat_template = CHAT
    ids = with_memory("chat", corpus, matches=1).encode(tokenizer, ASKED, "en-de")
    end = tokenizer.eos_token
    request = "Translate from English into German. Answer with the translation only.\n\n"
    assert tokenizer.decode(ids).replace(f"{end} ", end).strip() == (
        f"[user]{request}the small house{end}[assistant]das kleine Haus{end}"
        f"[user]{request}my small house{end}[assistant]"
    )


@pytest.mark.parametrize("name", ["plain", "tag"])
def test_the_weakest_go_first_where_there_is_no_room(
    name: str, tokenizer: Any, corpus: str
) -> None:
    whole = [
        with_memory(name, corpus, matches=m, threshold=0.3).encode(tokenizer, ASKED, "en-de")
        for m in (1, 2, 3)
    ]
    bare = template(name).encode(tokenizer, ASKED, "en-de")
    sizes = [len(bare), *map(len, whole)]
    assert sizes == sorted(set(sizes))
    for shown, expected in enumerate([bare, *whole]):
        for room in (sizes[shown], sizes[shown] + 1):
            tight = with_memory(name, corpus, room, threshold=0.3)
            assert tight.encode(tokenizer, ASKED, "en-de") == expected
            assert tight.memory.counts["en-de"]["dropped"] == 3 - shown


def test_rows_without_matches_and_monolingual_ones_are_as_ever(tokenizer: Any, corpus: str) -> None:
    shown = with_memory("tag", corpus)
    sources, directions = ["Nothing like it", None, ASKED], ["en-de", "de", "en-de"]
    bare = template("tag").encode_many(tokenizer, sources, directions)
    rows = shown.encode_many(tokenizer, sources, directions)
    assert rows[:2] == bare[:2]
    assert rows[2] == shown.encode(tokenizer, ASKED, "en-de") != bare[2]
    assert shown.encode_target(tokenizer, "Haus") == template("tag").encode_target(
        tokenizer, "Haus"
    )
    assert shown.end_ids(tokenizer) == template("tag").end_ids(tokenizer)
    plain = with_memory("plain", corpus)
    assert plain.stop_ids(tokenizer) == template("plain").stop_ids(tokenizer)


def test_a_translator_remembers_and_forgets(adapters: Path, corpus: str) -> None:
    made = Translator.from_base(
        *tiny_backbone(hidden=32, context=128),
        library=adapters / "adapters",
        template="tag",
        generation=Generation(limit=8),
        device="cpu",
    )
    before = made.translate([ASKED], "en-de")
    length = len(made.module.prompt(ASKED, "en-de").prompt)
    made.remember(Memory(corpus=corpus))
    prompts = [made.module.prompt(ASKED, "en-de").prompt for _ in range(2)]
    assert length < len(prompts[0]) <= 128 - 8
    assert prompts[0] == prompts[1]
    made.translate([ASKED], "en-de")
    assert not made.too_long(ASKED, "en-de")
    made.remember(None)
    assert made.translate([ASKED], "en-de") == before


@pytest.mark.parametrize("strategy", ["frozen", "lag"])
def test_evaluate_shows_matches_with_any_strategy(
    strategy: str, adapters: Path, tmp_path: Path
) -> None:
    chosen = ["strategy=lag", f"strategy.library={adapters}/adapters"] if strategy == "lag" else []
    settings = [
        *MODEL,
        "data=tongues",
        *DATA,
        *chosen,
        f"runs={tmp_path}",
        "+generation.limit=3",
        "limit=2",
        "metrics=[chrf++]",
        "memory.corpus=train",
        "memory.threshold=0.3",
    ]
    main(config("evaluate", *settings))
    (folder,) = folders(tmp_path)
    run_record = record(folder)["metrics"]["memory"]
    assert run_record["corpus"] == {"kind": "tongues", "split": "train", "size": 60}
    for counts in run_record["counts"].values():
        assert 0 < counts["matched"] <= counts["sentences"] == 2
        assert counts["matches"] > 0 and counts["same"] == 0


def test_evaluate_without_training_text_says_what_train_would_be(tmp_path: Path) -> None:
    settings = [*MODEL, "data=tongues", *DATA, "memory.corpus=train", "data.train=null"]
    with pytest.raises(ValueError, match=r"memory\.corpus=train needs data\.train"):
        main(config("evaluate", f"runs={tmp_path}", *settings))


def test_translate_shows_matches(
    adapters: Path, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(
        adapters / "config.yaml",
        "model: {_target_: polylect.models.backbone.tiny_backbone, hidden: 32}\n"
        "data: {directions: [en-de], template: tag}\n"
        "generation: {_target_: polylect.strategies.generation.Generation, limit: 3}\n",
    )
    write_text(tmp_path / "in.txt", f"{ASKED}\nthe old house\n")
    files = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt"]
    settings = [f"run={adapters}", "device=cpu", "direction=en-de", f"memory.corpus={corpus}"]
    assert run(["translate", *settings, *files]) == 0
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").count("\n") == 2
    stderr = capsys.readouterr().err
    assert "memory: 2 of 2 sentences with a match, 5 matches shown, 0 dropped" in stderr
    assert "1 in the memory themselves" in stderr
