"""The library program: a folder of adapters listed, checked, aligned, compared, added to."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from polylect.cli import run
from polylect.library import Adapter, AdapterLibrary, LowRank
from polylect.library.aligned import FILE
from polylect.library.folder import ABOUT
from polylect.library.peft_format import CONFIG, WEIGHTS
from polylect.library_program import similarities
from polylect.models.backbone import tiny_backbone

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
    said = capsys.readouterr()
    assert f"it  {Q} is 32 x 32 here" in said.out
    assert "note: 'de' and 'it' in" in said.out
    assert "1 of 4 adapters cannot be used" in said.err
    (library.path / "it" / WEIGHTS).unlink()
    assert call(library, "action=check") == 2
    assert "it has no adapter_model.safetensors" in capsys.readouterr().out


def test_alignments_are_made_once(
    library: AdapterLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    library.save("nil", Adapter({Q: LowRank(torch.randn(2, 32), torch.zeros(32, 2), 1.0)}))
    assert call(library, "action=align") == 0
    said = capsys.readouterr().out
    assert f"nil does nothing in 1 of 1 modules (such as {Q})." in said
    assert "4 adapters aligned, 0 were so before." in said
    assert all((library.path / name / FILE).is_file() for name in library.names)
    assert call(library, "action=align") == 0
    assert "0 adapters aligned, 4 were so before." in capsys.readouterr().out
    assert call(library) == 0
    assert capsys.readouterr().out.count("current") == 4


def test_similarities_are_means_over_common_layers(library: AdapterLibrary) -> None:
    library.save("both", Adapter({Q: library.load("fr").modules[Q], UP: update(2, 64)}))
    found = similarities(library)
    names = library.names
    dense = {
        name: {p: u.scaling * u.b @ u.a for p, u in library.load(name).modules.items()}
        for name in names
    }
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            common = dense[one].keys() & dense[other].keys()
            if not common:
                assert all(table[i][j] is None for table in found.values())
                continue
            pairs = [(dense[one][path], dense[other][path]) for path in common]
            cosines = [torch.cosine_similarity(x.flatten(), y.flatten(), dim=0) for x, y in pairs]
            assert found["update"][i][j] == pytest.approx(
                float(sum(cosines) / len(pairs)), abs=1e-5
            )
            tops = [tuple(torch.linalg.svd(m).Vh[0] for m in pair) for pair in pairs]
            angles = sum(float((x @ y).abs()) for x, y in tops) / len(pairs)
            assert found["arrow"][i][j] == pytest.approx(angles, abs=1e-5)
            if i == j:
                assert found["subspace"][i][j] == pytest.approx(1, abs=1e-5)
    assert found["update"][names.index("de")][names.index("fr")] == pytest.approx(-1, abs=1e-5)
    assert found["arrow"][names.index("de")][names.index("fr")] == pytest.approx(1, abs=1e-5)


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
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["adapters"] == ["de", "fr", "hi"]
    assert set(found) == {"adapters", "update", "arrow", "subspace"}
    assert found["update"][1][2] is None


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
