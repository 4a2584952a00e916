"""The tables of the READMEs and the pages beside them, made from the records.

    python experiments/tools/tables.py             # bring all of them in step with the records
    python experiments/tools/tables.py --check     # change nothing; exit 1 where one is not in step

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`. NAME is one of

    bench/loop            experiments/bench/results/loop.json: a benchmark
    captions/bleu         a metric of the runs in experiments/captions/results/*.json
    captions/matrix/RUN   chrF++ of each of that run's adapters in every direction
    captions/nats         held-out nats per token in each language after each run
    captions/characters   the same per character, and of the base before
    captions/together     each direction of a run against a run of it alone
    mix_moe/targets       nats per target token of each direction after each run
    mix_moe/tongues/bleu  a table of the runs RUN_seedN.json in experiments/mix_moe/results/tongues,
                          with mean and standard deviation over the seeds
    add_language/steps    steps to a chrF++ from each start of a new direction
    lag/domains/bleu      a metric of test sets DOMAIN_DIRECTION: means over directions
    lag/oracle/bleu       the same, as shares of what the run `oracle` has
    lag/routing           how often the right adapter was chosen, or one of its direction or domain
    lag/layers/RUN        how often that run chose the right adapter, by layer
    lag/joint/routing     any of these of the records in lag/results/joint
    lag/readable/tokens   what tells of the right adapter
    lag/readable/routers  nats per target token under every router
    routable/tongues/found   how often tokens would find their adapter
    routable/tongues/chosen  how often those do that each router writes itself
    routable/tongues/shares  chrF++ of each router as a share of the Oracle's
    routable/last/shares     the same where the last token of the prompt votes
    routable/left_out/written  chrF++ of each router without the adapter of the direction
    claims                the verdict of every card in experiments/claims
    claims/full           and what it was expected to be, was, and would have shown
    kilt/answers          scores of `polylect answer`, and how often each library's right adapter
                          was chosen

Runs from a changed working tree (`scratch`) stay out of the tables of experiments; a benchmark's
table says of itself what it comes from.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import records
import routing_tables
import run_tables
from bench_tables import benchmark
from claim_cards import cards, claims_table, full_table
from records import Record

from polylect.eval.metrics import TITLES
from polylect.eval.table import Table
from polylect.files import write_text

CLAIMS = {"claims": claims_table, "claims/full": full_table}
OVER_SEEDS = ("tongues", "last")
"""Folders of records whose rows are means over seeds."""
ROOT = Path(__file__).resolve().parents[2]
BEGIN = re.compile(r"^<!-- table:(?P<name>\S+) -->\n", re.MULTILINE)
BLOCK = re.compile(rf"({BEGIN.pattern})(?P<body>.*?)(^<!-- /table -->)", re.MULTILINE | re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    arguments = parser.parse_args()
    stale = update(arguments.root, write=not arguments.check)
    for name in stale:
        print(name)
    sys.exit(1 if arguments.check and stale else 0)


def update(root: Path, *, write: bool) -> list[str]:
    """ "FILE: table" for every table that is not in step with the records; mended if `write`.

    Raises ValueError for an unknown kind of table, FileNotFoundError for a missing record.
    """
    stale = []
    for page in [root / "README.md", *sorted((root / "experiments").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")

        def fresh(block: re.Match[str], page: Path = page) -> str:
            body = table(root / "experiments", block["name"])
            if body != block["body"]:
                stale.append(f"{page.relative_to(root)}: {block['name']}")
            return f"{block[1]}{body}{block[4]}"

        new = BLOCK.sub(fresh, text)
        if len(BEGIN.findall(new)) != len(BLOCK.findall(new)):
            raise ValueError(f"{page}: a table begins that does not end in <!-- /table -->")
        if write and new != text:
            write_text(page, new)
    return stale


def table(experiments: Path, name: str) -> str:
    """The Markdown of one table."""
    folder, _, what = name.partition("/")
    if name in CLAIMS:
        text = CLAIMS[name](list(cards(experiments).values())).markdown()
        return f"\n{text.replace('---:', '---')}\n"  # words, to the left
    results = experiments / folder / "results"
    if folder == "bench":
        return benchmark(records.read(results / f"{what}.json"))
    inner, _, rest = what.partition("/")
    if (results / inner).is_dir():
        results, what = results / inner, rest
    kind, _, detail = what.partition("/")
    makers: dict[str, Callable[[Mapping[str, Record]], Table]] = {
        "matrix": lambda runs: run_tables.adapters(runs, detail),
        "nats": run_tables.likelihoods,
        "characters": run_tables.characters,
        "together": run_tables.together,
        "targets": run_tables.target_likelihoods,
        "steps": run_tables.steps,
        "domains": lambda runs: routing_tables.domains(runs, detail),
        "oracle": lambda runs: routing_tables.oracle_shares(runs, detail),
        "routing": routing_tables.routing,
        "layers": lambda runs: routing_tables.layers(runs, detail),
        "tokens": routing_tables.readable,
        "routers": routing_tables.routed_likelihoods,
        "answers": routing_tables.answers,
        "found": routing_tables.found,
        "chosen": routing_tables.chosen,
        "shares": routing_tables.shares,
        "written": routing_tables.written,
        **{metric: partial(run_tables.scores, metric=metric) for metric in TITLES},
    }
    if kind not in makers:
        raise ValueError(f"there is no table {name}; known are {folder}/{', '.join(makers)}")
    make = makers[kind]
    if results.name in OVER_SEEDS:
        return of_runs(results, results.name, lambda runs: run_tables.over_seeds(make(runs)))
    return of_runs(results, folder, make)


def of_runs(results: Path, experiment: str, make: Callable[[Mapping[str, Record]], Table]) -> str:
    """A table of those runs that count, and the names of those that do not."""
    files = sorted(results.glob("*.json")) if results.is_dir() else []
    runs = {file.stem.removeprefix(f"{experiment}_"): records.read(file) for file in files}
    counted: dict[str, Record] = {}
    others: dict[str, list[str]] = {}
    for name, record in runs.items():
        if reason := records.proves_nothing(record):
            others.setdefault(reason, []).append(name)
        else:
            counted[name] = record
    notes = "".join(
        f"\nLeft out: {', '.join(sorted(names))} ({reason}).\n"
        for reason, names in sorted(others.items())
    )
    if not counted:
        return f"\nNo run yet.\n{notes}\n"
    return f"\n{make(counted).markdown()}{notes}\n"


if __name__ == "__main__":
    main()
