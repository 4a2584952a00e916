"""Tables of systems that route among adapters, tested on sets named DOMAIN_DIRECTION."""

from collections.abc import Callable, Mapping, Sequence

from records import Record

from polylect.eval.metrics import TITLES
from polylect.eval.table import Table

ALL = "all"


def domains(runs: Mapping[str, Record], metric: str) -> Table:
    """Means over the directions of each domain, apart where signatures differ, and over all.

    A run that lacks some of the test sets has no mean over all.
    """
    scores = {name: _by_domain(_test_scores(run, metric)) for name, run in runs.items()}
    sizes: dict[tuple[str, str], int] = {}
    for domains_of_run in scores.values():
        for column, values in domains_of_run.items():
            sizes[column] = max(sizes.get(column, 0), len(values))
    columns = sorted(sizes, key=lambda column: column[0] == ALL)
    rows = [
        (name, *(_mean(values.get(c, []), sizes[c]) for c in columns))
        for name, values in scores.items()
    ]
    signatures = sorted({signature for _, signature in columns})
    header = (TITLES[metric], *(_title(*c, signatures) for c in columns))
    notes = tuple(f"{TITLES[metric]}: {signature}" for signature in signatures)
    return Table(header, tuple(rows), notes)


def oracle_shares(runs: Mapping[str, Record], metric: str) -> Table:
    """The mean over test sets of a run's score as a share of the oracle's, in per cent."""
    if "oracle" not in runs:
        raise ValueError(f"there is no run oracle to compare with; runs are {', '.join(runs)}")
    oracle = {test: value for test, _, value in _test_scores(runs["oracle"], metric) if value}
    shares: dict[str, dict[str, list[float]]] = {}
    for name, run in runs.items():
        for test, _, value in _test_scores(run, metric):
            for column in (split(test)[0], ALL) if test in oracle else ():
                share = 100 * value / oracle[test]
                shares.setdefault(name, {}).setdefault(column, []).append(share)
    columns = [*dict.fromkeys(split(test)[0] for test in oracle), ALL]
    sizes = {column: len(shares["oracle"][column]) for column in columns}
    rows = [
        (name, *(_mean(values.get(c, []), sizes[c]) for c in columns))
        for name, values in shares.items()
    ]
    return Table((f"% of the Oracle's {TITLES[metric]}", *columns), tuple(rows))


def answers(runs: Mapping[str, Record]) -> Table:
    """Scores by task, the mean share of the Oracle's, the right adapters of each library."""
    tasks = list(dict.fromkeys(task for run in runs.values() for task in run["metrics"]["tasks"]))
    metrics_of = {name: run["metrics"] for name, run in runs.items()}
    agreements = {name: m.get("routing", {}).get("agreement", {}) for name, m in metrics_of.items()}
    libraries = list(dict.fromkeys(library for sides in agreements.values() for library in sides))
    sides = [(library, side) for library in libraries for side in ("source", "target")]
    rows = [
        (
            name,
            *(f"{metrics['tasks'][task]:.1f}" for task in tasks),
            _share(metrics),
            *(
                f"{100 * agreements[name][library][side]:.1f}"
                if library in agreements[name]
                else "-"
                for library, side in sides
            ),
        )
        for name, metrics in metrics_of.items()
    ]
    header = ("answers", *(task.replace("_", " ") for task in tasks), "% of the Oracle")
    return Table((*header, *(f"right {a}, {b}" for a, b in sides)), tuple(rows))


def _share(metrics: Record) -> str:
    return f"{metrics['share']['average']:.0f}" if "share" in metrics else "-"


def routing(runs: Mapping[str, Record]) -> Table:
    """Shares of the tokens in per cent: the right adapter, one of its direction, of its domain."""
    sides, whats = ("source", "target"), ("adapter", "direction", "domain")
    rows = [
        (name, *(f"{100 * shares[side][what]:.1f}" for side in sides for what in whats))
        for name, run in runs.items()
        if (shares := run["metrics"].get("routing", {}).get("all"))
    ]
    header = ("% of tokens", *(f"{side}: {what}" for side in sides for what in whats))
    return Table(header, tuple(rows))


def layers(runs: Mapping[str, Record], run: str) -> Table:
    """Rows are blocks of the model, columns its linear layers; source / target, in per cent."""
    if run not in runs:
        raise ValueError(f"there is no run {run!r}; runs are {', '.join(runs)}")
    cells: dict[str, dict[str, str]] = {}
    for layer, sides in runs[run]["metrics"]["routing"]["layers"].items():
        block = next((part for part in layer.split(".") if part.isdigit()), "-")
        shares = " / ".join(f"{100 * sides[side]['adapter']:.0f}" for side in ("source", "target"))
        cells.setdefault(block, {})[layer.split(".")[-1]] = shares
    columns = list(dict.fromkeys(kind for row in cells.values() for kind in row))
    rows = [(block, *(row.get(kind, "-") for kind in columns)) for block, row in cells.items()]
    return Table(("right adapter, %", *columns), tuple(rows), ("Source / target tokens.",))


def readable(runs: Mapping[str, Record]) -> Table:
    """What tells of the right adapter, in per cent of the tokens, by run and side of the text."""
    columns = {
        "chance": "chance",
        "arrow": "Arrow",
        "spectr_energy": "SpectR, energy",
        "spectr_proj": "SpectR",
        "probe": "linear probe of the input",
        "span": "input's energy in A",
        "span_by_chance": "in a random A",
    }
    rows = [
        (f"{name}, {side}", *(f"{shares[column]:.1f}" for column in columns))
        for name, run in runs.items()
        for side, shares in run["metrics"]["readable"]["all"].items()
    ]
    return Table(("%", *columns.values()), tuple(rows))


def routed_likelihoods(runs: Mapping[str, Record]) -> Table:
    """Nats per target token under the right adapter, none, and every router."""
    nats = {name: run["metrics"]["nats_per_token"] for name, run in runs.items()}
    columns = list(dict.fromkeys(router for row in nats.values() for router in row))
    rows = [(name, *(f"{row[router]:.3f}" for router in columns)) for name, row in nats.items()]
    return Table(("nats per token", *columns), tuple(rows))


def found(runs: Mapping[str, Record]) -> Table:
    """How often a token would find its adapter where the right one acts, in per cent."""
    columns = [("source", r) for r in ("spectr", "spectr_center_prompt")]
    columns += [("target", r) for r in ("arrow", "lag", "spectr", "lag_center", "spectr_center")]
    rows = [
        (name, *(f"{run['metrics']['forced'][router][side]:.1f}" for side, router in columns))
        for name, run in runs.items()
    ]
    header = ("% of tokens", *(f"{side}: {router}" for side, router in columns))
    return Table(header, tuple(rows))


def chosen(runs: Mapping[str, Record]) -> Table:
    """The same of the translation that each router writes itself."""
    return _by_router(runs, "% of target tokens", lambda routers, name: routers[name]["target"])


def shares(runs: Mapping[str, Record]) -> Table:
    """chrF++ of each router as a share of the Oracle's, whose own stands first."""
    oracles = {name: run["metrics"]["routers"].get("oracle", {}) for name, run in runs.items()}
    table = _by_router(
        runs,
        "% of the Oracle's chrF++",
        lambda routers, name: 100 * routers[name]["chrf++"] / routers["oracle"]["chrf++"],
    )
    rows = [(row[0], f"{oracles[row[0]]['chrf++']:.1f}", *row[1:]) for row in table.rows]
    return Table((table.header[0], "Oracle, chrF++", *table.header[1:]), tuple(rows))


def written(runs: Mapping[str, Record]) -> Table:
    """chrF++ of each router, where no Oracle could know."""
    return _by_router(runs, "chrF++", lambda routers, name: routers[name]["chrf++"])


def _by_router(
    runs: Mapping[str, Record],
    title: str,
    value: Callable[[Mapping[str, Mapping[str, float]], str], float],
) -> Table:
    """A row for each run that translated, a column for each router but the Oracle."""
    routers = {name: run["metrics"]["routers"] for name, run in runs.items()}
    routers = {name: of_run for name, of_run in routers.items() if of_run}
    columns = dict.fromkeys(c for of_run in routers.values() for c in of_run if c != "oracle")
    rows = [
        (name, *(f"{value(of_run, c):.1f}" if c in of_run else "-" for c in columns))
        for name, of_run in routers.items()
    ]
    return Table((title, *columns), tuple(rows))


def split(test: str) -> tuple[str, str]:
    """Domain and direction."""
    domain, _, direction = test.rpartition("_")
    return domain, direction


def _test_scores(run: Record, metric: str) -> list[tuple[str, str, float]]:
    """Test set, signature and value."""
    return [
        (test, scores[metric]["signature"], scores[metric]["value"])
        for test, scores in run["metrics"]["test"].items()
        if metric in scores
    ]


def _by_domain(test_values: Sequence[tuple[str, str, float]]) -> dict[tuple[str, str], list[float]]:
    """Values by domain, or all, and signature."""
    values: dict[tuple[str, str], list[float]] = {}
    for test, signature, value in test_values:
        for domain in (split(test)[0], ALL):
            values.setdefault((domain, signature), []).append(value)
    return values


def _mean(values: Sequence[float], count: int) -> str:
    """The mean of so many values; a dash where some are missing."""
    return f"{sum(values) / count:.1f}" if len(values) == count else "-"


def _title(domain: str, signature: str, signatures: Sequence[str]) -> str:
    """The domain, and what sets the signature apart from others."""
    shared = set.intersection(*(set(s.split("|")) for s in signatures))
    return " ".join([domain, *(part for part in signature.split("|") if part not in shared)])
