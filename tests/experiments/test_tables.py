"""The tables in the READMEs say what the records say."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tables
from synthetic import BLEU, put, run_record, scores

ROOT = Path(__file__).resolve().parents[2]


def bench_record(ratio: float, **changes: Any) -> dict[str, Any]:
    return {
        "command": ["python", "experiments/bench/demo.py"],
        "started": "2026-01-02T03:04:05+0000",
        "seconds": 12.0,
        "load_before": 0.1,
        "seed": 1,
        "scratch": False,
        "gpu": "not run",
        "environment": {
            "device": "a processor",
            "threads": 2,
            "commit": "0123456789abcdef",
            "packages": {"torch": "2.13.0", "triton": None},
        },
        "rows": [
            {
                "phase": "decode",
                "adapters": 4,
                "rounds": 9,
                "milliseconds": {"ours": 5.0, "peft": 12.3456},
                "over_ours": {
                    "ours": {"median": 1.0, "quartiles": [1.0, 1.0]},
                    "peft": {"median": ratio, "quartiles": [2.3, 2.6]},
                },
                "largest_difference": 2e-7,
                "goals": {"peft": {"at_least": 2.0}},
                "figures": {"lines": 1200, "lengths": [5, 70]},
            }
        ],
    } | changes


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A root README and an experiment whose README has two tables, yet to be filled."""
    (tmp_path / "README.md").write_text("# Nothing made from records\n", encoding="utf-8")
    put(tmp_path, "demo/results/demo_lora", run_record(20.0))
    put(tmp_path, "demo/results/full", run_record(25.25))
    put(tmp_path, "bench/results/demo", bench_record(2.5))
    text = "".join(
        f"Before {name}.\n<!-- table:{name} -->\n<!-- /table -->\nAfter.\n"
        for name in ("demo/bleu", "bench/demo")
    )
    (tmp_path / "experiments" / "demo" / "README.md").write_text(text, encoding="utf-8")
    return tmp_path


def readme(root: Path) -> Path:
    return root / "experiments" / "demo" / "README.md"


def test_the_readmes_are_in_step_with_the_records() -> None:
    assert tables.update(ROOT, write=False) == [], "run `python experiments/tools/tables.py`"


def test_an_update_fills_the_tables_and_only_them(checkout: Path) -> None:
    stale = tables.update(checkout, write=True)
    assert stale == [
        "experiments/demo/README.md: demo/bleu",
        "experiments/demo/README.md: bench/demo",
    ]
    text = readme(checkout).read_text(encoding="utf-8")
    assert text.startswith("Before demo/bleu.\n") and text.endswith("After.\n")
    assert tables.update(checkout, write=False) == []


def test_a_page_beside_a_readme_has_tables_too(checkout: Path) -> None:
    readme(checkout).rename(readme(checkout).with_name("MORE.md"))
    assert "experiments/demo/MORE.md: demo/bleu" in tables.update(checkout, write=False)


def test_scores_of_runs_are_rows_with_the_signature_below(checkout: Path) -> None:
    text = tables.table(checkout / "experiments", "demo/bleu")
    assert "| BLEU | en-de | en-fr |" in text
    assert "| lora | 20.0 | 30.0 |" in text, "the experiment's name before a run's is left away"
    assert "| full | 25.2 | 35.2 |" in text
    assert f"BLEU, en-de en-fr: {BLEU}" in text
    assert "| lora | 50.0 | 60.0 |" in tables.table(checkout / "experiments", "demo/chrf++")


def test_runs_that_prove_nothing_are_left_out_by_name(checkout: Path) -> None:
    put(checkout, "demo/results/dirty", run_record(99.0, scratch=True))
    put(checkout, "demo/results/broken", run_record(98.0, status="failed"))
    text = tables.table(checkout / "experiments", "demo/bleu")
    assert "| dirty |" not in text and "| broken |" not in text
    assert "Left out: dirty (from a changed working tree)." in text
    assert "Left out: broken (failed)." in text


def test_without_a_run_that_counts_there_is_no_table(checkout: Path) -> None:
    for path in (checkout / "experiments" / "demo" / "results").iterdir():
        put(checkout, f"demo/results/{path.stem}", run_record(1.0, scratch=True))
    assert "No run yet." in tables.table(checkout / "experiments", "demo/bleu")
    assert "No run yet." in tables.table(checkout / "experiments", "elsewhere/bleu")


def test_other_signatures_in_a_column_are_refused(checkout: Path) -> None:
    other = run_record(1.0)
    other["metrics"]["test"]["en-de"]["bleu"]["signature"] = BLEU.replace("13a", "intl")
    put(checkout, "demo/results/other", other)
    with pytest.raises(ValueError, match="cannot hold both"):
        tables.table(checkout / "experiments", "demo/bleu")


def test_matrix_and_likelihoods_of_the_analysis(checkout: Path) -> None:
    analysis = {
        "matrix": {"a": {"en-de": scores(1, 41.0)}, "b": {"en-de": scores(2, 42.0)}},
        "nats_per_token": {"none": {"en": 3.25}, "a": {"en": 4.5, "de": 2.0}},
    }
    put(checkout, "demo/results/switch", run_record(30.0, analysis=analysis))
    matrix = tables.table(checkout / "experiments", "demo/matrix/switch")
    assert "| a | 41.0 |" in matrix and "| b | 42.0 |" in matrix
    nats = tables.table(checkout / "experiments", "demo/nats")
    assert "| switch | 3.250 | - |" in nats and "| switch, a | 4.500 | 2.000 |" in nats


def test_nats_per_character_stand_beside_those_of_the_base(checkout: Path) -> None:
    analysis = {
        "nats_per_character": {"none": {"en": 1.5}, "a": {"en": 2.5}},
        "before": {"nats_per_character": {"en": 1.25}},
    }
    put(checkout, "demo/results/switch", run_record(30.0, analysis=analysis))
    text = tables.table(checkout / "experiments", "demo/characters")
    assert "| switch, before | 1.250 |" in text
    assert "| switch | 1.500 |" in text and "| switch, a | 2.500 |" in text


def test_directions_together_and_alone(checkout: Path) -> None:
    row = {
        "target_tokens": {"together": 10391, "alone": 10075},
        "chrf++": {"together": 75.53, "alone": 76.91},
        "signature": "some|sig",
        "difference": -1.38,
        "interval": [-2.0, -0.5],
        "p": 0.01,
        "p_holm": 0.02,
    }
    put(checkout, "demo/results/both", run_record(30.0, analysis={"alone": {"en-de": row}}))
    text = tables.table(checkout / "experiments", "demo/together")
    expected = "| both, en-de | 75.5 | 76.9 | -1.4 (-2.0 to -0.5) | 0.020 | 10,391 / 10,075 |"
    assert expected in text and "some|sig" in text


def test_likelihoods_of_translations_have_a_table_of_their_own(checkout: Path) -> None:
    put(checkout, "demo/results/two", run_record(30.0, analysis={"nats_per_target": {"en-de": 2}}))
    text = tables.table(checkout / "experiments", "demo/targets")
    assert "| nats per target token | en-de |" in text and "| two | 2.000 |" in text
    assert "| full |" not in text, "nothing was measured of it"


def test_seeds_are_one_row_with_mean_and_deviation(checkout: Path) -> None:
    for seed, bleu in ((1, 20.0), (2, 23.0), (3, 26.0)):
        put(checkout, f"demo/results/tongues/tongues_fft_seed{seed}", run_record(bleu))
    put(checkout, "demo/results/tongues/tongues_base", run_record(1.0))
    put(checkout, "demo/results/tongues/tongues_odd_seed1", run_record(1.0, scratch=True))
    text = tables.table(checkout / "experiments", "demo/tongues/bleu")
    assert "| fft | 23.0 ± 3.0 | 33.0 ± 3.0 |" in text
    assert "| base | 1.0 | 11.0 |" in text
    assert "Seeds: base 1, fft 3" in text
    assert "Left out: odd_seed1 (from a changed working tree)." in text
    assert "fft" not in tables.table(checkout / "experiments", "demo/bleu")


def test_a_benchmark_says_what_was_timed_and_where(checkout: Path) -> None:
    text = tables.table(checkout / "experiments", "bench/demo")
    assert "| decode, adapters 4 | peft | 2.50 | 2.30 to 2.60 | ≥ 2 met | 9 |" in text
    assert "- decode, adapters 4: lines 1,200; lengths 5 and 70" in text
    assert "GPU: not run." in text and "changed working tree" not in text
    assert "    python experiments/bench/demo.py" in text


def test_a_missed_goal_and_a_changed_tree_are_not_hidden() -> None:
    text = tables.benchmark(bench_record(1.99, scratch=True))
    assert "| 1.99 |" in text and "≥ 2 MISSED" in text
    assert "(changed working tree)" in text


def change_readme(root: Path) -> None:
    path = readme(root)
    path.write_text(path.read_text(encoding="utf-8").replace("20.0", "21.0"), encoding="utf-8")


def change_run(root: Path) -> None:
    put(root, "demo/results/demo_lora", run_record(21.0))


def change_benchmark(root: Path) -> None:
    put(root, "bench/results/demo", bench_record(2.6))


@pytest.mark.parametrize(
    ("change", "table"),
    [(change_readme, "demo/bleu"), (change_run, "demo/bleu"), (change_benchmark, "bench/demo")],
)
def test_a_changed_number_is_found(
    checkout: Path, change: Callable[[Path], None], table: str
) -> None:
    tables.update(checkout, write=True)
    change(checkout)
    assert tables.update(checkout, write=False) == [f"experiments/demo/README.md: {table}"]


def test_a_changed_number_in_the_real_readmes_is_found(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    path = tmp_path / "experiments" / "bench" / "README.md"
    text = path.read_text(encoding="utf-8")
    cell = re.search(r"\| (\d+\.\d\d) \|", text)
    path.write_text(f"{text[: cell.start(1)]}0.00{text[cell.end(1) :]}", encoding="utf-8")
    assert len(tables.update(tmp_path, write=False)) == 1


def test_unknown_tables_and_open_ends_are_refused(checkout: Path) -> None:
    with pytest.raises(ValueError, match="there is no table demo/blue"):
        tables.table(checkout / "experiments", "demo/blue")
    readme(checkout).write_text("<!-- table:demo/bleu -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="does not end"):
        tables.update(checkout, write=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode", "lora", "loop", "switch"])
def test_every_benchmark_writes_a_record_that_makes_a_table(name: str, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    script = ROOT / "experiments" / "bench" / f"{name}.py"
    options = ["--tiny", "--seconds", "2", "--rounds", "1", "--threads", "1", "--out", out]
    subprocess.run([sys.executable, script, *options], cwd=tmp_path, check=True)
    text = tables.benchmark(json.loads(out.read_text(encoding="utf-8")))
    assert "its time / ours" in text and text.count("\n| ") > 2
