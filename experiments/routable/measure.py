"""Every router over the adapters of one run, on its test sets: whom tokens choose, what is written.

    measure.py --library RUN/adapters --out FILE.json -- model=tongues data=tongues

The model is loaded once. Of each router the record has the mean chrF++ over the directions and the
share of tokens that found the adapter of their direction, over all layers, on the source and on the
translation as the system itself writes it. Of `forced` the translation is the reference and every
token goes through the right adapter: whether it would be found, with nothing gone wrong before.

The translations stay out of the record.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from polylect.data.batch import pad_id
from polylect.data.stream import EvaluationBatches
from polylect.eval.metrics import score
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.counts import RouteCounts, agreement
from polylect.layers.adapters.observers import Place
from polylect.layers.adapters.selection import RouterSettings, Selection
from polylect.layers.adapters.selectors import Oracle, Selector, selector_for
from polylect.layers.tokens import TokenView
from polylect.strategies.base import TranslationModule, prompt_lengths
from polylect.strategies.lag import LAG

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from oracle import analyse_library, library_parser

ROUTERS = {
    "oracle": RouterSettings("oracle"),
    "uniform": RouterSettings("uniform"),
    "arrow": RouterSettings("arrow", k=1),
    "lag": RouterSettings("lag", k=3),
    "spectr": RouterSettings("spectr", k=1),
    "spectr_center": RouterSettings("spectr", k=1, center=True),
    "lag_center": RouterSettings("lag", k=3, center=True),
    "spectr_prompt": RouterSettings("spectr", k=1, level="prompt"),
    "arrow_center_prompt": RouterSettings("arrow", k=1, center=True, level="prompt"),
    "lag_center_prompt": RouterSettings("lag", k=3, center=True, level="prompt"),
    "spectr_center_prompt": RouterSettings("spectr", k=1, center=True, level="prompt"),
    "spectr_model": RouterSettings("spectr", k=1, level="model"),
    "arrow_center_last": RouterSettings("arrow", k=1, center=True, level="last"),
    "lag_center_last": RouterSettings("lag", k=3, center=True, level="last"),
    "spectr_center_last": RouterSettings("spectr", k=1, center=True, level="last"),
}
FORCED = ("arrow", "lag", "spectr", "lag_center", "spectr_center", "spectr_center_prompt")


class Asked:
    """Counts whom a router would choose, in a pass in which others choose."""

    def __init__(self, selector: Selector) -> None:
        self.selector, self.counts = selector, RouteCounts()

    def observe(
        self,
        place: Place,
        bank: AdapterBank,
        x: torch.Tensor,
        view: TokenView,
        selection: Selection,
    ) -> None:
        self.counts.observe(place, bank, x, view, self.selector.select(x, bank, view))


def main() -> None:
    parser = library_parser(__doc__.splitlines()[0], limit=25)
    parser.add_argument("--routers", nargs="*", choices=ROUTERS, default=list(ROUTERS))
    arguments = parser.parse_args()

    def measure(module: LAG, data: Any) -> dict[str, Any]:
        by_router = {
            router: translated(module, data, arguments.limit, router)
            for router in arguments.routers
        }
        by_rival = {rival: forced(module, data, arguments.limit, rival) for rival in FORCED}
        return {"forced": by_rival, "routers": by_router}

    analyse_library(arguments, measure)


def forced(module: LAG, data: Any, limit: int, router: str) -> dict[str, float]:
    """By side, how often a router would choose the right adapter, where that acts."""
    module.route_by(ROUTERS[router])
    asked = Asked(selector_for(ROUTERS[router]))
    right = {"library": Oracle()}
    for direction in data.directions_of("test"):
        examples = data.examples(direction, "test", limit)
        for batch in EvaluationBatches(examples, 2048, 64, pad_id(module.tokenizer)):
            route = batch.directions, prompt_lengths(batch)
            with module.router.route(*route, selectors=right, observers=[asked]):
                module(batch)
    return _percent(agreement(asked.counts.rows())["library"])


def translated(module: LAG, data: Any, limit: int, router: str) -> dict[str, float]:
    """Mean chrF++, and by side how often the right adapter was chosen."""
    module.route_by(ROUTERS[router])
    module.counts.clear()
    values = [chrf_of(module, data, name, limit) for name in data.directions_of("test")]
    found = {"chrf++": round(sum(values) / len(values), 2)}
    print(f"{router}: {found['chrf++']}", flush=True)
    return found | _percent(agreement(module.routing_rows())["library"])


def chrf_of(module: TranslationModule, data: Any, direction: str, limit: int) -> float:
    """chrF++ of the first test sentences of a direction."""
    prompts = data.prompts(direction, "test", limit)
    texts = [translation.text for translation in module.translate(prompts)]
    references = [prompt.references for prompt in prompts]
    (chrf,) = score(texts, references, metrics=["chrf++"], target=direction.split("-")[1])
    return chrf.value


def _percent(shares: dict[str, float]) -> dict[str, float]:
    return {side: round(100 * share, 1) for side, share in shares.items()}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
