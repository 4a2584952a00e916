"""The library program: a folder of adapters listed, checked, aligned, compared, added to."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from polylect.cli import run
from polylect.library import Adapter, AdapterLibrary, LowRank
from polylect.library.aligned_library import FILE
from polylect.library.folder import ABOUT
from polylect.library.peft_format import CONFIG, WEIGHTS
from polylect.models.backbone import tiny_backbone
from polylect.programs.library import similarities

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"


def update(rank: int, out: int) -> LowRank:
    return LowRank(torch.randn(rank, 32), torch.randn(out, rank), 0.5)


@pytest.fixture
def library(tmp_path: Path) -> AdapterLibrary:
    """Adapters for the tiny model, of different ranks and targets."""
    library = AdapterLibrary(tmp_path / "library")
    q, up = update(3, 32), update(2, 64)
    library.save("de", Adapter({Q: q, UP: up}, {"directions": ["en-de"], "base_model": "tiny"}))
    library.save("fr", Adapter({Q: LowRank(q.a, -2 * q.b, 1.0)}, {"directions": ["en-fr"]}))
    library.save("hi", Adapter({UP: update(4, 64)}))
    return library


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(library: AdapterLibrary, *settings: str) -> int:
    return run(["library", f"path={library.path}", *settings])


def test_adapters_are_listed(library: AdapterLibrary, capsys: pytest.CaptureFixture[str]) -> None:
    (library.path / "hi" / WEIGHTS).write_bytes(b"")
    assert call(library) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert cells[1] == ["de", "en-de", "2", "3", "2", "0.0", "missing", "tiny"]
    assert cells[2][:4] == ["fr", "en-fr", "3", "1"]
    assert "cannot be read" in lines[3]


def test_what_cannot_be_used_is_told(
    library: AdapterLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(library, "action=check") == 0
    assert capsys.readouterr().out.splitlines() == ["de  good", "fr  good", "hi  good"]
    library.save("it", Adapter({Q: update(1, 31)}, {"directions": ["en-de"]}))
    model, tokenizer = tiny_backbone(hidden=32)
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    base = ["model=local", f"model.path={tmp_path / 'tiny'}"]
    assert call(library, "action=check", *base) == 2
    output = capsys.readouterr()
    assert f"it  {library.path / 'it' / WEIGHTS}: {Q} is 32 x 32 here" in output.out
    assert "note: en-de is served by de and it: take it out of 'directions'" in output.out
    assert "1 of 4 adapters cannot be used" in output.err
    (library.path / "it" / WEIGHTS).unlink()
    assert call(library, "action=check") == 2
    assert "it has no adapter_model.safetensors" in capsys.readouterr().out


def tensors(**changes: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    """Changes the factors "a" and "b" of the first module, or leaves them out."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        for letter, entry in changes.items():
            key = f"base_model.model.{Q}.lora_{letter.upper()}.weight"
            factor = tensors.pop(key)
            tensors |= {} if entry is None else {key: entry(factor).contiguous()}
        save_file(tensors, folder / WEIGHTS)

    return change


def keys(old: str, new: str) -> Callable[[Path], None]:
    """Gives tensors other names."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        save_file({k.replace(old, new): t for k, t in tensors.items()}, folder / WEIGHTS)

    return change


def config(part: str = CONFIG, **changes: Any) -> Callable[[Path], None]:
    """Changes keys of a JSON file."""

    def change(folder: Path) -> None:
        report = json.loads((folder / part).read_text())
        (folder / part).write_text(json.dumps(report | changes))

    return change


def contents_of(part: str, content: bytes | None) -> Callable[[Path], None]:
    """Replaces a file, or takes it away."""

    def change(folder: Path) -> None:
        (folder / part).unlink()
        if content is not None:
            (folder / part).write_bytes(content)

    return change


def truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def pickle_it(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def tie(folder: Path) -> None:
    """As PEFT saves an adapter of a head with ensure_weight_tying."""
    config(ensure_weight_tying=True)(folder)
    tensors = load_file(folder / WEIGHTS)
    embedding = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(3, 40)}
    save_file(tensors | embedding, folder / WEIGHTS)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "nan": (tensors(b=lambda b: b * float("nan")), WEIGHTS, "NaN or infinite values .* train"),
    "infinite": (tensors(a=lambda a: a / 0), WEIGHTS, "lora_A.weight has NaN or infinite values"),
    "truncated": (truncate, WEIGHTS, "damaged .* copy it again"),
    "empty": (contents_of(WEIGHTS, b""), WEIGHTS, "empty .* copy it again"),
    "pointer": (contents_of(WEIGHTS, LFS), WEIGHTS, "pointer of Git LFS .* git lfs pull"),
    "page": (contents_of(WEIGHTS, b"<!doctype html>"), WEIGHTS, "no safetensors file"),
    "unconfigured": (contents_of(CONFIG, None), CONFIG, "copy or download the whole folder"),
    "cut_config": (contents_of(CONFIG, b'{"peft_type": '), CONFIG, "not valid JSON"),
    "pointer_config": (contents_of(CONFIG, LFS), CONFIG, "git lfs pull"),
    "rank_text": (config(r="3"), CONFIG, 'r must be a whole number above 0, got "3"'),
    "alpha_nan": (config(lora_alpha=float("nan")), CONFIG, "lora_alpha must be a finite number"),
    "targets": (config(target_modules={"q": 1}), CONFIG, "target_modules must be a regular"),
    "pattern": (config(target_modules="(q"), CONFIG, "target_modules must be a regular expr"),
    "rank": (config(r=4), WEIGHTS, "gives it rank 4: .* do not belong together"),
    "no_b": (tensors(b=None), WEIGHTS, f"lora_A of {Q} but not the other: .* download it again"),
    "no_module": (tensors(a=None, b=None), WEIGHTS, f"no tensors for {Q}.* download it again"),
    "narrow": (tensors(a=lambda a: a[:, :31]), WEIGHTS, f"{Q} is 32 x 32 here.* use the base"),
    "kohya": (keys("base_model.model.", "lora_unet_"), WEIGHTS, "no name of PEFT's.* save_pretr"),
    "state": (keys(".weight", ".default.weight"), WEIGHTS, "name, .default., stands in it"),
    "other": (keys("q_proj", "wq"), WEIGHTS, "wq, which target_modules .* do not belong together"),
    "unknown": (
        lambda f: [keys("q_proj", "wq")(f), config(target_modules=["wq", "up_proj"])(f)],
        WEIGHTS,
        "the base has no module .*wq, nearest is .*: use the base it was trained on",
    ),
    "whole": (tensors(a=lambda a: a.to(torch.int8)), WEIGHTS, "in int8: save it again in float32"),
    "tied": (tie, WEIGHTS, "embeddings .* train it again with ensure_weight_tying=False"),
    "head": (keys(f"{Q}.lora_A", "lm_head.base_layer"), WEIGHTS, "save_embedding_layers=False"),
    "dora": (config(use_dora=True), CONFIG, "DoRA .* train it again as plain LoRA"),
    "loha": (config(peft_type="LOHA"), CONFIG, "type LOHA: only LORA is supported"),
    "pickled": (pickle_it, WEIGHTS, r"save it again as safetensors.*adapter_model\.bin"),
    "elsewhere": (config(ABOUT, base_fingerprint="ab" * 32), WEIGHTS, "another base .* use that"),
    "base": (config(base_model_name_or_path="me/large"), WEIGHTS, "'me/large', this one is .*"),
    "about": (contents_of(ABOUT, b"{'directions': 1}"), ABOUT, "not valid JSON"),
    "directions": (config(ABOUT, directions="en-de"), ABOUT, "directions must be a list of names"),
    "a.b": (config(), "a.b", "rename .* letters, digits"),
    "values": (config(), "values", "rename .* reserved by torch"),
}
"""What breaks an adapter, the file that is named, and what is said of it."""


def test_each_fault_of_a_broken_adapter_is_named(
    library: AdapterLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (damage, *_) in BROKEN.items():
        shutil.copytree(library.path / "de", library.path / name)
        damage(library.path / name)
    model, tokenizer = tiny_backbone(hidden=32)
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    before = contents(library.path)
    assert call(library, "action=check", "model=local", f"model.path={tmp_path / 'tiny'}") == 2
    output = capsys.readouterr()
    lines = dict(line.split("  ", 1) for line in output.out.splitlines() if "  " in line)
    assert lines.keys() == BROKEN.keys() | {"de", "fr", "hi"}
    assert {name for name, line in lines.items() if line == "good"} == {"de", "fr", "hi"}
    for name, (_, file, words) in BROKEN.items():
        assert str(library.path / name) in lines[name] and file in lines[name], lines[name]
        assert re.search(words, lines[name]), lines[name]
    assert f"{len(BROKEN)} of {len(BROKEN) + 3} adapters cannot be used" in output.err
    assert "Traceback" not in output.err
    assert contents(library.path) == before


def test_what_is_wrong_in_the_files_is_found_without_a_base(
    library: AdapterLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_base = {"no_module", "narrow", "unknown", "elsewhere", "base"}
    for name, (damage, *_) in BROKEN.items():
        shutil.copytree(library.path / "de", library.path / name)
        damage(library.path / name)
    assert call(library, "action=check") == 2
    lines = capsys.readouterr().out.splitlines()
    good = {line.removesuffix("  good") for line in lines if line.endswith("  good")}
    assert good == needs_base | {"de", "fr", "hi"}
    assert call(library, "action=list") == 0  # which must not stumble over them
    assert call(AdapterLibrary(library.path / "de"), "action=check") == 2
    assert "is an adapter: give the folder that holds it" in capsys.readouterr().err


def test_alignments_are_made_once(
    library: AdapterLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    library.save("nil", Adapter({Q: LowRank(torch.randn(2, 32), torch.zeros(32, 2), 1.0)}))
    assert call(library, "action=align") == 0
    stdout = capsys.readouterr().out
    assert f"nil does nothing in 1 of 1 modules (such as {Q})." in stdout
    assert "4 adapters aligned, 0 were so before." in stdout
    assert all((library.path / name / FILE).is_file() for name in library.names)
    assert call(library, "action=align") == 0
    assert "0 adapters aligned, 4 were so before." in capsys.readouterr().out
    assert call(library) == 0
    assert capsys.readouterr().out.count("current") == 4


def test_similarities_are_means_over_common_layers(library: AdapterLibrary) -> None:
    library.save("both", Adapter({Q: library.load("fr").modules[Q], UP: update(2, 64)}))
    actual = similarities(library)
    names = library.names
    dense = {
        name: {p: u.scaling * u.b @ u.a for p, u in library.load(name).modules.items()}
        for name in names
    }
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            common = dense[one].keys() & dense[other].keys()
            if not common:
                assert all(table[i][j] is None for table in actual.values())
                continue
            pairs = [(dense[one][path], dense[other][path]) for path in common]
            cosines = [torch.cosine_similarity(x.flatten(), y.flatten(), dim=0) for x, y in pairs]
            assert actual["update"][i][j] == pytest.approx(
                float(sum(cosines) / len(pairs)), abs=1e-5
            )
            tops = [tuple(torch.linalg.svd(m).Vh[0] for m in pair) for pair in pairs]
            angles = sum(float((x @ y).abs()) for x, y in tops) / len(pairs)
            assert actual["arrow"][i][j] == pytest.approx(angles, abs=1e-5)
            if i == j:
                assert actual["subspace"][i][j] == pytest.approx(1, abs=1e-5)
    assert actual["update"][names.index("de")][names.index("fr")] == pytest.approx(-1, abs=1e-5)
    assert actual["arrow"][names.index("de")][names.index("fr")] == pytest.approx(1, abs=1e-5)


def test_adapters_are_compared(
    library: AdapterLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables" / "similarity.json"
    assert call(library, "action=compare", "measure=arrow", f"out={out}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["adapter", "de", "fr", "hi"],
        ["de", "1.00", "1.00", lines[2].split()[3]],
        ["fr", "1.00", "1.00", "-"],
        ["hi", lines[2].split()[3], "-", "1.00"],
    ]
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["adapters"] == ["de", "fr", "hi"]
    assert set(report) == {"adapters", "update", "arrow", "subspace"}
    assert report["update"][1][2] is None


def test_an_adapter_is_added_and_nothing_else_changes(
    library: AdapterLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "from.elsewhere"
    shutil.copytree(library.path / "de", source)
    (source / "optimizer.pt").write_bytes(b"much")
    before, original = contents(library.path), contents(source)
    assert call(library, "action=add", f"source={source}", "adapter=it", "directions=[en-it]") == 0
    assert "added: " in capsys.readouterr().out
    assert {p.name for p in (library.path / "it").iterdir()} == {CONFIG, WEIGHTS, ABOUT}
    assert library.about("it") == {"directions": ["en-it"], "base_model": "tiny"}
    assert torch.equal(library.load("it").modules[Q].b, library.load("de").modules[Q].b)
    after = contents(library.path)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after} == {"de", "fr", "hi", "it"}
    assert contents(source) == original
    new = AdapterLibrary(tmp_path / "new")
    (source / ABOUT).unlink()
    assert call(new, "action=add", f"source={source}", "adapter=en-it") == 0
    assert new.directions == {"en-it": "en-it"}


def test_an_adapter_is_removed_and_nothing_else(library: AdapterLibrary, tmp_path: Path) -> None:
    before = contents(library.path)
    assert call(library, "action=remove", "adapter=fr") == 0
    kept = {name: data for name, data in before.items() if not name.startswith("fr/")}
    assert contents(library.path) == kept
    outside = tmp_path / "outside"
    (library.path / "hi").rename(outside)
    (library.path / "hi").symlink_to(outside)
    assert call(library, "action=remove", "adapter=hi") == 0
    assert library.names == ["de"]
    assert (outside / CONFIG).is_file()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["action=lst"], "action=lst does not exist; did you mean list"),
        (["action=compare", "measure=arows"], "measure=arows does not exist; did you mean arrow"),
        (["action=add"], "give source=FOLDER"),
        (["action=add", "source=nowhere"], "nowhere is no adapter folder"),
        (["action=add", "source=LIBRARY/de"], "de exists: choose another name"),
        (["action=add", "source=LIBRARY/de", "adapter=a.b"], "adapter=a.b: use letters"),
        (["action=add", "source=LIBRARY/de", "adapter=a.b"], "only, as in adapter=a-b."),
        (["action=add", "source=LIBRARY/de", "adapter=it", "directions=[en-qx]"], "qx"),
        (["action=remove"], "give adapter=NAME"),
        (["action=remove", "adapter=dee"], "did you mean de"),
        (["action=remove", "adapter='../other'"], "no adapter '../other'"),
        (["path=nowhere"], "path=nowhere holds no adapter"),
        (["adaptor=x"], "did you mean adapter"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    settings: list[str],
    sentence: str,
    library: AdapterLibrary,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(library.path.parent)
    given = [s.replace("LIBRARY", str(library.path)) for s in settings]
    assert call(library, *given) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("polylect: ") and sentence in error[-1]
    assert contents(library.path.parent) == before
