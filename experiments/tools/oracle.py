"""A library under the Oracle, as the scripts that analyse routing begin."""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from publish import write_published
from settings import settings_of

from polylect.config.roots import plain
from polylect.run.build import build_data
from polylect.run.record import Record
from polylect.run.untrained_model import build_untrained
from polylect.strategies.lag import LAG


def library_parser(description: str, limit: int) -> argparse.ArgumentParser:
    """The arguments that `analyse_library` takes; `limit` is the default of sentences."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("overrides", nargs="+", help="of evaluate: model and data")
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=limit, help="sentences of each test set")
    return parser


def routed(library: str | Path) -> list[str]:
    """The overrides of LAG over a library, with the Oracle as router."""
    return ["strategy=lag", f"strategy.library={library}", "strategy.router=oracle"]


def analyse_library(
    arguments: argparse.Namespace, measure: Callable[[LAG, Any], dict[str, Any]]
) -> dict[str, Any]:
    """Write the record of what `measure` says of a LAG with the Oracle and of its test sets.

    Returns the metrics.
    """
    begin = time.monotonic()
    cfg = settings_of("evaluate", [*arguments.overrides, *routed(arguments.library)])
    record = Record(run=str(arguments.library), config=plain(cfg))
    data, module = build_data(cfg), build_untrained(cfg)
    data.tokenizer, data.template = module.tokenizer, module.template
    data.setup("test")
    record.metrics |= measure(module, data)
    record.data, record.status = data.report, "done"
    record.seconds = round(time.monotonic() - begin, 1)
    write_published(arguments.out, asdict(record) | {"scratch": record.scratch})
    return record.metrics
