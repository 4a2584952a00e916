"""Every router over one library, on the test set of every adapter in it; one record each.

An adapter is named DOMAIN_DIRECTION, and `conf/data/DOMAIN.yaml` has its test set. The model is
loaded once; all sets are translated together, which no router notices: rows do not see each other.
Of each system the record has BLEU and chrF++ on every set, and how often each adapter was chosen,
against the right one: by layer, and by set, on the tokens of the source and of the translation.

The translations stay out of the records: a model at times writes what stands in the data.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.datamodule import TranslationData
from polylect.eval.metrics import score
from polylect.files import write_text
from polylect.layers.adapters.selection import RouterSettings
from polylect.run.build import build_data, build_strategy, load_backbone_into
from polylect.run.record import Record
from polylect.strategies.lag import LAG

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from publish import write_published
from settings import settings_of

SWITCH = "captions"  # the domain that a switch by language alone takes


@dataclass(frozen=True)
class System:
    """Settings of the router, and the adapter that a test set's rows name, if a router asks."""

    settings: RouterSettings
    named: Callable[[str], str] = str


def by_language(name: str) -> str:
    """What one knows who knows the direction and not the domain."""
    return f"{SWITCH}_{split(name)[1]}"


ORACLE = RouterSettings("oracle")
SYSTEMS = {
    "base": System(ORACLE, lambda name: ""),
    "oracle": System(ORACLE),
    "language_switch": System(ORACLE, by_language),
    "uniform": System(RouterSettings("uniform")),
    "arrow_1": System(RouterSettings("arrow", k=1)),  # LAG, k = 1
    "arrow_4": System(RouterSettings("arrow", k=4)),
    "lag_2": System(RouterSettings("lag", k=2)),
    "lag_3": System(RouterSettings("lag", k=3)),
    "lag_5": System(RouterSettings("lag", k=5)),
    "spectr_proj": System(RouterSettings("spectr", k=1, form="proj")),  # LAG, k = n
    "spectr_energy": System(RouterSettings("spectr", k=1, form="energy")),
    "spectr_calibrated": System(RouterSettings("spectr", k=1, form="calibrated")),
    "lag_5_sentence": System(RouterSettings("lag", k=5, level="sentence")),
    "lag_5_model": System(RouterSettings("lag", k=5, level="model")),
    "spectr_model": System(RouterSettings("spectr", k=1, level="model")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--base", required=True, help="folder of the base model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the records")
    parser.add_argument("--outputs", type=Path, help="folder for the translations; default: none")
    parser.add_argument("--limit", type=int, default=60, help="sentences of each test set")
    parser.add_argument("--calibration", type=int, default=60, help="sentences of each val set")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    arguments = parser.parse_args()

    cfg = compose_config(SWITCH, arguments.base, arguments.library)
    module = build_strategy(cfg)
    load_backbone_into(module, None, cfg)
    module.eval()
    names = module.libraries["library"].names
    data = {domain: read(domain, arguments.base, module) for domain in domains(names)}
    tests = {n: examples(data, n, "test", arguments.limit) for n in names}
    if any(SYSTEMS[name].settings.form == "calibrated" for name in arguments.systems):
        module.calibrate(calibration(data, names, arguments.calibration, module))
    for name in arguments.systems:
        begin = time.monotonic()
        record = Record(run=str(arguments.library), config=config(arguments, SYSTEMS[name]))
        translations = translate(module, SYSTEMS[name], tests)
        record.metrics = {
            "test": {n: scores(tests[n], texts, n) for n, texts in translations.items()},
            "routing": routing(module),
        }
        record.data = {domain: domain_data.report for domain, domain_data in data.items()}
        record.status, record.seconds = "done", round(time.monotonic() - begin, 1)
        content = asdict(record) | {"scratch": record.scratch}
        write_published(arguments.out / f"lag_{name}.json", content)
        for test, texts in translations.items() if arguments.outputs else ():
            write_text(arguments.outputs / name / f"{test}.txt", "\n".join(texts) + "\n")
        mean = sum(s["chrf++"]["value"] for s in record.metrics["test"].values()) / len(tests)
        print(f"{name}: mean chrF++ {mean:.2f}, {record.seconds} s", flush=True)


def split(name: str) -> tuple[str, str]:
    """Domain and direction of an adapter."""
    domain, _, direction = name.rpartition("_")
    if not domain:
        raise ValueError(f"adapter {name} must be named DOMAIN_DIRECTION: see polylect library")
    return domain, direction


def domains(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(split(name)[0] for name in names))


def compose_config(domain: str, base: str, library: Path | str = "none") -> DictConfig:
    overrides = [f"data={domain}", "model=local", f"model.path={base}", "generation.ratio=1.5"]
    return settings_of("evaluate", [*overrides, "strategy=lag", f"strategy.library={library}"])


def read(domain: str, base: str, module: LAG) -> TranslationData:
    """The test and val sets of a domain."""
    cfg = compose_config(domain, base)
    cfg.data.train = None
    data = build_data(cfg)
    data.tokenizer, data.template = module.tokenizer, module.template
    data.setup("validate")
    data.setup("test")
    return data


def examples(
    data: Mapping[str, TranslationData], name: str, which: str, limit: int
) -> list[Example]:
    """The first sentences of the set of an adapter, which name the adapter as their direction."""
    domain, direction = split(name)
    prompts = data[domain].examples(direction, which, limit)
    return [replace(example, direction=name) for example in prompts]


def calibration(
    data: Mapping[str, TranslationData], names: Sequence[str], limit: int, module: LAG
) -> Iterable[TranslationBatch]:
    """Each adapter's own domain and direction; not the sentences that it was trained on."""
    for name in names:
        prompts = examples(data, name, "val", limit)
        for begin in range(0, len(prompts), 20):
            yield collate(prompts[begin : begin + 20], pad_id(module.tokenizer), "right")


def translate(
    module: LAG, system: System, tests: Mapping[str, Sequence[Example]]
) -> dict[str, list[str]]:
    """The translations of every set."""
    module.route_by(system.settings)
    module.counts.clear()
    prompts = [
        replace(example, direction=system.named(name), target=[])
        for name, examples in tests.items()
        for example in examples
    ]
    texts = iter([t.text for t in module.translate(prompts)])
    return {name: [next(texts) for _ in examples] for name, examples in tests.items()}


def scores(prompts: Sequence[Example], texts: Sequence[str], name: str) -> dict[str, Any]:
    target = split(name)[1].split("-")[1]
    references = [example.references for example in prompts]
    results = score(list(texts), references, metrics=["bleu", "chrf++"], target=target)
    values = {s.name: {"value": s.value, "signature": s.signature} for s in results}
    return {**values, "sentences": len(prompts)}


def routing(module: LAG) -> dict[str, Any]:
    """Shares of the right adapter, of those of its direction and domain, and of every adapter.

    Nothing where adapters were named.
    Weighed by tokens: by layer, by test set, and over all; "chosen" is by side, set and adapter,
    over all layers.
    """
    if module.settings.router == "oracle":
        return {}
    rows = module.routing_rows()
    return {
        "all": _sides(rows),
        "layers": {layer: _sides(own) for layer, own in _by(rows, "layer").items()},
        "tests": {test: _sides(own) for test, own in _by(rows, "direction").items()},
        "chosen": {
            side: {test: _adapter_shares(own) for test, own in _by(side_rows, "direction").items()}
            for side, side_rows in _by(rows, "side").items()
        },
    }


def _sides(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        side: {
            "adapter": _mean(side_rows, lambda own, other: own == other),
            "direction": _mean(side_rows, partial(_same, part=1)),
            "domain": _mean(side_rows, partial(_same, part=0)),
        }
        for side, side_rows in _by(rows, "side").items()
    }


def _same(own: str, other: str, part: int) -> bool:
    return split(own)[part] == split(other)[part]


def _mean(rows: Sequence[Mapping[str, Any]], fits: Callable[[str, str], bool]) -> float:
    tokens = sum(row["tokens"] for row in rows)
    hits = sum(
        row["tokens"] * share
        for row in rows
        for adapter, share in row["shares"].items()
        if fits(row["direction"], adapter)
    )
    return round(hits / tokens, 4)


def _adapter_shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Adapters and their shares."""
    names = sorted({name for row in rows for name in row["shares"]})
    return {name: _mean(rows, lambda own, adapter, name=name: adapter == name) for name in names}


def _by(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def config(arguments: argparse.Namespace, system: System) -> dict[str, Any]:
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "systems"}
    return {**settings, "router": asdict(system.settings)}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
