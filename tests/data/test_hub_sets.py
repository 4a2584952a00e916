"""The sets of the hub, imitated in folders as they are there: card, Parquet, CSV and gzip files."""

import gc
import gzip
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from polylect.config.roots import conf_folder
from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.hub_sets import HUB_SETS, flores_code
from polylect.data.datamodule import TranslationData
from polylect.data.languages import LANGUAGES

EN = ["The soup is hot.", "Mr. Rao said “no”.", "NA"]
HI = ["सूप गरम है।", 'श्री राव ने "नहीं" कहा।', "शून्य"]
TRAIN = "train-00000-of-00001.parquet"
PAIRS = list(zip(EN, HI, strict=True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    datasets.disable_progress_bars()


def lay(folder: Path, configurations: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Write a folder as on the hub: Parquet files by configuration and split, named in the card."""
    configs = []
    for name, splits in configurations.items():
        files = []
        for split, records in splits.items():
            file = Path(name, f"{split}-00000-of-00001.parquet")
            (folder / name).mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_list(records).to_parquet(folder / file)
            files.append({"split": split, "path": str(file)})
        configs.append({"config_name": name, "data_files": files})
    card = yaml.safe_dump({"configs": configs})
    (folder / "README.md").write_text(f"---\n{card}---\n", encoding="utf-8")


def lay_hub(root: Path) -> None:
    """The sets with three sentences each, with the columns that they have on the hub."""
    translations = [{"translation": {"en": en, "hi": hi}} for en, hi in PAIRS]
    lay(root / "Helsinki-NLP/opus-100", {"en-hi": {"train": translations, "test": translations}})
    lay(root / "wmt/wmt14", {"hi-en": {"train": translations, "validation": translations}})
    lay(
        root / "sentence-transformers/parallel-sentences-ccmatrix",
        {"en-hi": {"train": [{"english": en, "non_english": hi} for en, hi in PAIRS]}},
    )
    rows = [{"idx": i, "src": en, "tgt": hi} for i, (en, hi) in enumerate(PAIRS)]
    lay(root / "ai4bharat/samanantar", {"hi": {"train": rows}})
    _lay_bpcc(root / "ai4bharat/BPCC")
    lay(root / "openlanguagedata/flores_plus", {
        code: {"devtest": [{"id": i, "iso_639_3": code[:3], "text": t} for i, t in enumerate(side)]}
        for code, side in (("eng_Latn", EN), ("hin_Deva", HI))
    })  # fmt: skip
    columns = [{"eng_Latn": en, "hin_Deva": hi} for en, hi in PAIRS]
    lay(root / "mteb/NTREX", {"default": {"test": columns}})
    noted = [{"id": i, "source": "https://x", "domain": "d", **r} for i, r in enumerate(columns)]
    lay(root / "ai4bharat/IN22-Gen", {"default": {"train": noted}})
    nllb = root / "allenai/nllb/eng_Latn-hin_Deva.gz"
    nllb.parent.mkdir(parents=True)
    with gzip.open(nllb, "wt", encoding="utf-8") as file:
        file.writelines(
            f"{en}\t{hi}\t1.2\t0.9\t0.9\tcrawl\t_\tcrawl\thttps://x\n" for en, hi in PAIRS
        )


def _lay_bpcc(folder: Path) -> None:
    lines = ["src_lang\ttgt_lang\tsrc\ttgt"]
    lines += [f"eng_Latn\thin_Deva\t{en}\t{_quoted(hi)}" for en, hi in PAIRS]
    (folder / "bpcc-seed-latest").mkdir(parents=True)
    (folder / "bpcc-seed-latest/hin_Deva.tsv").write_text("\n".join(lines), encoding="utf-8")
    files = [{"split": "hin_Deva", "path": "bpcc-seed-latest/hin_Deva.tsv"}]
    card = yaml.safe_dump(
        {"configs": [{"config_name": "bpcc-seed-latest", "sep": "\t", "data_files": files}]}
    )
    (folder / "README.md").write_text(f"---\n{card}---\n", encoding="utf-8")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def rows(root: Path, setting: str, spec: Any, direction: str = "en-hi") -> list[tuple[Any, str]]:
    parts = corpora(setting, spec, [direction], root)[direction]
    return [(row.source, row.target) for part in parts for row in part.rows()]


def identity(root: Path, spec: str) -> dict[str, str]:
    """Hashes of the files of a set by name."""
    setting = "train" if "train" in HUB_SETS[spec.removeprefix("hub:")].splits else "test"
    (corpus,) = corpora(setting, spec, ["en-hi"], root)["en-hi"]
    return corpus.identity()["files"]


def test_every_set_is_read_in_both_directions(tmp_path: Path) -> None:
    lay_hub(tmp_path)
    sets = [name for name in HUB_SETS if (tmp_path / HUB_SETS[name].path).exists()]
    assert len(sets) == 9
    for name in sets:
        setting = "train" if "train" in HUB_SETS[name].splits else "test"
        assert rows(tmp_path, setting, f"hub:{name}") == PAIRS, name
        turned = [(hi, en) for en, hi in PAIRS]
        assert rows(tmp_path, setting, f"hub:{name}", "hi-en") == turned, name
    assert rows(tmp_path, "test", "hub:flores", "hi") == [(None, hi) for hi in HI]
    identities = {name: identity(tmp_path, f"hub:{name}") for name in sets}
    assert identities["nllb"].keys() == {"allenai/nllb/eng_Latn-hin_Deva.gz"}
    assert identities["samanantar"].keys() == {f"ai4bharat/samanantar/hi/{TRAIN}"}
    assert len(identities["flores"]) == 2 and len(identities["bpcc"]) == 1
    assert all(len(digest) == 64 for one in identities.values() for digest in one.values())


def test_languages_have_the_names_of_flores() -> None:
    names = "eng_Latn arb_Arab npi_Deva ory_Orya zho_Hans zho_Hant jpn_Jpan srp_Cyrl ces_Latn"
    codes = "en ar ne or zh zh_Hant ja sr cs"
    assert [flores_code(code) for code in codes.split()] == names.split()
    assert all(len(flores_code(code).partition("_")[2]) == 4 for code in LANGUAGES)


@pytest.mark.filterwarnings(
    "ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_mixture_is_streamed_and_counted(tmp_path: Path) -> None:
    lay_hub(tmp_path)
    sets = ["ccmatrix", "nllb", "samanantar", "bpcc"]
    train = [{"kind": "hub", "path": name, "streaming": True, "stop": 2} for name in sets]
    data = TranslationData(
        directions=["en-hi"],
        train=train,
        test={"kind": "hub", "path": "in22-gen", "streaming": True, "start": 1, "stop": 2},
        root=str(tmp_path),
        filters={"duplicate": True},
    )
    data.setup()
    report = data.report["train"]["en-hi"]
    assert [part["corpus"] for part in report["corpora"]] == [HUB_SETS[name].path for name in sets]
    assert report["read"] == 8 and report["dropped"] == {"overlap": 4, "duplicate": 3}
    assert not list((tmp_path / "hf-cache").rglob("*.arrow"))  # of what is streamed
    gc.collect()  # files that `datasets` leaves open, while that is no error


def test_the_mixture_of_the_configurations_is_read_and_cached(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    lay_hub(tmp_path)
    lay(tmp_path / "openlanguagedata/flores_plus", {
        code: {"dev": [{"id": 0, "text": text}], "devtest": [{"id": 0, "text": text}]}
        for code, text in (("eng_Latn", "He reads."), ("hin_Deva", "वह पढ़ता है।"))
    })  # fmt: skip
    lay(
        tmp_path / "ai4bharat/IN22-Gen",
        {"default": {"train": [{"eng_Latn": "She sings.", "hin_Deva": "वह गाती है।"}]}},
    )
    settings = yaml.safe_load((conf_folder() / "data/indic_hub.yaml").read_text(encoding="utf-8"))
    del settings["_target_"]
    settings |= {"directions": ["en-hi"], "root": str(tmp_path), "seed": 0}
    settings["cache"] = str(tmp_path / "cache")
    data = TranslationData(tokenizer=tokenizer, **settings)
    data.setup()
    report = data.report["train"]["en-hi"]
    assert report["read"] == report["kept"] == 9 and len(report["corpora"]) == 3
    (manifest,) = tmp_path.glob("cache/en-hi-*/manifest.json")
    assert f"ai4bharat/samanantar/hi/{TRAIN}" in manifest.read_text(encoding="utf-8")
    assert next(iter(data.training_stream(1))).rows == 9


def test_what_a_set_does_not_have_is_said(tmp_path: Path) -> None:
    lay_hub(tmp_path)
    with pytest.raises(ValueError, match="did you mean opus-100"):
        rows(tmp_path, "train", "hub:opus100")
    with pytest.raises(ValueError, match="in22-gen is for test; with the key split"):
        rows(tmp_path, "train", "hub:in22-gen")
    with pytest.raises(ValueError, match="bpcc is read in directions between English and another"):
        rows(tmp_path, "train", "hub:bpcc", "hi-ta")
    with pytest.raises(ValueError, match=r"nllb.*\('.*eng_Latn-deu_Latn.gz' or '.*deu_Latn-eng"):
        rows(tmp_path, "train", "hub:nllb", "en-de")


def test_configurations_for_each_language_must_be_aligned(tmp_path: Path) -> None:
    def read(name: str, order: list[int]) -> list[tuple[Any, str]]:
        sides = {
            "en": {"test": [{"id": i, "text": en} for i, en in enumerate(EN)]},
            "hi": {"test": [{"id": i, "text": HI[i]} for i in order]},
        }
        lay(tmp_path / name, sides)
        spec = {"kind": "hf", "path": name, "name": "{lang}", "split": "test"}
        spec |= {"source": "source.text", "target": "target.text"}
        return rows(tmp_path, "test", spec)

    assert read("right", [0, 1, 2]) == PAIRS
    with pytest.raises(ValueError, match=r"turned\[test\]:2: id 1 beside 2: en and hi are not"):
        read("turned", [0, 2, 1])
    with pytest.raises(ValueError, match=r"short\[test\]:3: hi has no such example"):
        read("short", [0, 1])
