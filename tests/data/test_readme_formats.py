"""The README's table of formats: each example is written to files and read as it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from polylect.config.overrides import resolve_overrides
from polylect.config.roots import conf_folder
from polylect.data.corpora.corpus import KEYS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CODE = re.compile("`([^`]+)`")
GOOD_DAY = ("Good day.", "Guten Tag.")


def examples() -> dict[str, list[str]]:
    """The cells of each row, by format."""
    table = README[README.index("<!-- formats -->") :].partition("\n\n")[2].partition("\n\n")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


EXAMPLES = examples()


def test_every_kind_of_file_has_an_example() -> None:
    shown = " ".join(EXAMPLES).lower()
    kinds = KEYS.keys() - {"tongues", "hf"}
    assert all(kind in shown for kind in kinds) and "hugging face, hub" in shown


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_read_as_the_table_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, content, setting = EXAMPLES[name]
    lines = [CODE.findall(line) for line in content.split("<br>")]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    if name.startswith("Hugging Face"):
        _serve(lines, CODE.findall(files), monkeypatch)
    else:
        for file, column in zip(CODE.findall(files), zip(*lines, strict=True), strict=True):
            text = "".join(f"{line}\n" for line in column).replace("⇥", "\t")
            Path(file).write_text(text, encoding="utf-8")
    pairs = _read(CODE.findall(setting)[0])
    assert pairs[0] == GOOD_DAY
    header = "header" in name or name == "CSV"
    assert len(pairs) == (1 if content.startswith("`<") else 3 - header)
    assert all(a and b and not {"⇥", "<", "{"} & set(a + b) for a, b in pairs)


def _read(spec: str) -> list[tuple[str | None, str]]:
    """The training pairs of `polylect train` with this setting."""
    from hydra import compose, initialize_config_dir

    from polylect.run.build import build_data

    given = ["data=files", "data.directions=[en-de]", f"data.train={spec}", "data.val=null"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose("train", overrides=resolve_overrides("train", given, conf_folder()))
    data = build_data(cfg)
    data.setup("fit")
    store = data.pairs("en-de", "train")
    return [(store[i].source, store[i].target) for i in range(len(store))]


def _serve(lines: list[list[str]], folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The records as a saved dataset, or as what the hub has under one orientation of the pair."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("cache"))
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list([json.loads(line) for (line,) in lines])
    for folder in folders:
        made.save_to_disk(folder)
    if folders:
        return

    class Builder:
        name = "parquet"

    def on_hub(path: str, name: str) -> type:
        if (path, name) != ("Helsinki-NLP/opus-100", "de-en"):
            raise ValueError(f"BuilderConfig {name!r} not found")
        return Builder

    def load(path: str, name: str, split: str) -> Any:
        assert on_hub(path, name) and split == "train"
        return made

    monkeypatch.setattr(datasets, "load_dataset_builder", on_hub)
    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("my.{lan}", r"train of 'en-de': path has the placeholder {lan}, .* did you mean {lang}"),
        ("{target}.txt", r"placeholder {target}, which does not exist"),
        ('{kind: hf, path: a/b, name: "{pairs}"}', r"name has .* {pairs}.* did you mean {pair}\?"),
        ('{kind: jsonl, path: a, source: "x.{source}"}', r"source has the placeholder {source}"),
        ('{kind: aligned, path: "{lang}", references: ["{sourc}.1"]}', r"references has .*{sourc}"),
    ],
)
def test_an_unknown_placeholder_is_named_before_any_file_is_opened(
    setting: str, message: str
) -> None:
    from polylect.config.roots import ConfigError

    with pytest.raises(ConfigError, match=message):
        _read(setting)


def test_direction_is_a_placeholder_of_its_own_order(tmp_path: Path) -> None:
    from polylect.data.corpora.corpus import corpora

    (tmp_path / "en-de.tsv").write_text("Good day.\tGuten Tag.\n", encoding="utf-8")
    (tmp_path / "de.txt").write_text("Guten Tag.\n", encoding="utf-8")
    (corpus,) = corpora("train", "{direction}.tsv", ["en-de"], tmp_path)["en-de"]
    assert [row[1:3] for row in corpus.rows()] == [GOOD_DAY]
    (other,) = corpora("train", "{direction}.tsv", ["de-en"], tmp_path)["de-en"]
    with pytest.raises(FileNotFoundError, match=r"de-en\.tsv does not exist"):
        list(other.rows())
    (mono,) = corpora("train", "{direction}.txt", ["de"], tmp_path)["de"]
    assert [row.target for row in mono.rows()] == ["Guten Tag."]


def test_help_of_the_choice_shows_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    from polylect.cli import run

    with pytest.raises(SystemExit):
        run(["train", "data=files", "--help"])
    shown = capsys.readouterr().out
    assert "data=files" in shown
    for kind, keys in KEYS.items():
        assert kind in shown and all(key in shown for key in keys), kind
    for placeholder in ("{src}", "{tgt}", "{lang}", "{direction}", "{pair}"):
        assert placeholder in shown
    assert "start" in shown and "codes" in shown and "length_ratio" in shown
