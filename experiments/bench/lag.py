"""Routing among many adapters: against PEFT's Arrow, router against router, and a whole model.

    python experiments/bench/lag.py --out experiments/bench/results/lag.json

- update: what Arrow, top 4 of adapters of rank 8, adds to a linear layer of 512 x 512, here and in
  PEFT, with the same prototypes (PEFT estimates them, ours are exact); layer: the frozen layer and
  that. `no adapter` is the frozen layer.
- router: LAG (k = 5) on such a layer against our Arrow (top 1 and top 4) and SpectR (top 1). What
  is compared before: LAG with k = 1 is Arrow, with k = all SpectR.
- library: LAG over 64, 256 and 1000 adapters against LAG over 10.
- model: a Llama with LAG (k = 5) over 64 adapters of rank 16 on all linear layers, its choices
  counted, against the same model with one plain adapter: prefill of 32 rows of 32 tokens, and a
  decoding step after them. `products alone` is what LAG multiplies, with inputs and choices that
  are there already. "profile" is the share of the processor's time by kind of operation.
"""

import argparse
import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from lora_models import ALPHA, CACHE, CONFIG, LENGTH, RANK, ROWS, tokens
from peft import ArrowConfig, LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache, LlamaForCausalLM

from polylect.kernels.lag_select.reference import candidate_products
from polylect.layers.adapters.alignment import align, singular_values
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.counts import RouteCounts
from polylect.layers.adapters.observers import Observer
from polylect.layers.adapters.router import AdapterRouter, attach_routing, banks_of
from polylect.layers.adapters.selection import RouterSettings, select
from polylect.layers.adapters.selectors import Oracle, PerToken, Selector
from polylect.layers.adapters.weighted_updates import up_project, weighted_update
from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_all
from polylect.layers.surgery import find_linears

WIDTH, LAYER_RANK, TOP = 512, 8, 4
TIMES_FASTER = {(64, 32): 3, (64, 256): 3, (64, 1024): 5, (64, 4096): 5, (256, 1024): 10}
ROUTED = ((8, 32), (64, 32), (64, 256), (64, 1024), (256, 256), (1000, 32), (1000, 256))
SIZES = (10, 64, 256, 1000)
LAG = RouterSettings("lag", k=5)
ROUTERS = {
    "lag": LAG,
    "arrow top 1": RouterSettings("arrow", k=1),
    "arrow top 4": RouterSettings("arrow", k=TOP),
    "spectr": RouterSettings("spectr", k=1, weights="uniform"),
}
MOST = 2.0  # times a plain adapter
KINDS = {  # by parts of an operation's name, the first that fits
    "products": {"mm", "bmm", "addmm", "embedding", "attention"},
    "choice": {"topk", "sort", "norm", "abs", "amax", "amin", "bincount", "masked", "remainder"},
    "indices and copies": {"gather", "index", "scatter", "cat", "copy", "arange", "fill", "sparse"},
}


def run(arguments: argparse.Namespace) -> list[Row]:
    cases = [partial(layer, *case) for case in TIMES_FASTER]
    cases += [partial(routers, *case) for case in ROUTED]
    cases += [partial(scale, SIZES, count) for count in (32, 256)]
    cases += [partial(model, 64, phase) for phase in PHASES]
    if arguments.tiny:
        cases = [partial(layer, 4, 8), partial(routers, 4, 8)]
        cases += [partial(scale, (2, 4), 8), partial(model, 4, "decode")]
    share = arguments.seconds / len(cases)
    rows = []
    for case in cases:
        torch.manual_seed(arguments.seed)
        result = case(share, arguments.rounds)
        rows += result if isinstance(result, list) else [result]
    return rows


class Layer:
    """A linear layer with random adapters, here and in PEFT."""

    def __init__(self, adapters: int, *, peft: bool = False) -> None:
        base = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
        a = torch.randn(adapters, LAYER_RANK, WIDTH) / WIDTH**0.5
        b = torch.randn(adapters, WIDTH, LAYER_RANK) / LAYER_RANK**0.5
        self.frozen = copy.deepcopy(base)
        self.peft = in_peft(base, a, b) if peft else None
        self.router = AdapterRouter(RoutingContext(), {})
        banks = {"library": bank_of(a, b, 1.0)}
        self.layer = attach_routing(base, self.router, banks, "layer")
        if peft:
            arrow = self.peft.base_model.model.layer.lora_arrow["arrow_router"]
            arrow.register_buffer("prototypes", banks["library"].arrows, persistent=False)
            arrow._protos_ready = True

    @torch.inference_mode()
    def __call__(self, x: Tensor, settings: RouterSettings) -> Tensor:
        selectors = {"library": PerToken(settings)}
        with self.router.route(["all"], torch.tensor([x.shape[1]]), selectors=selectors):
            return self.layer(x)


def bank_of(a: Tensor, b: Tensor, scaling: float) -> AdapterBank:
    """Adapters (adapters, rank, in) and (adapters, out, rank) of one layer."""
    factors = {
        str(i): align(*factor_pair, scaling) for i, factor_pair in enumerate(zip(a, b, strict=True))
    }
    return AdapterBank(
        list(factors),
        torch.stack([a_star[0] for a_star, _ in factors.values()]),
        torch.stack([singular_values(b_star) for _, b_star in factors.values()]),
        lambda name, which: factors[name][which == "b"],
        b.shape[1],
    )


def in_peft(base: nn.Linear, a: Tensor, b: Tensor) -> PeftModel:
    """The layer in a model of its own, with adapters "task_i" and the Arrow router on."""
    names = [f"task_{i}" for i in range(len(a))]
    options = {"r": LAYER_RANK, "lora_alpha": LAYER_RANK, "target_modules": ["layer"]}
    theirs = get_peft_model(
        nn.ModuleDict({"layer": copy.deepcopy(base)}), LoraConfig(**options), names[0]
    )
    for name in names[1:]:
        theirs.add_adapter(name, LoraConfig(**options))
    lora = theirs.base_model.model.layer
    for name, of_a, of_b in zip(names, a, b, strict=True):
        lora.lora_A[name].weight.data.copy_(of_a)
        lora.lora_B[name].weight.data.copy_(of_b)
    arrow = ArrowConfig(top_k=TOP, router_temperature=1.0)
    arrow.task_adapter_names, arrow.gks_adapter_names = names, []
    theirs.add_adapter("arrow_router", LoraConfig(arrow_config=arrow, **options))
    theirs.base_model.set_adapter("arrow_router")
    return theirs.eval()


def layer(adapters: int, count: int, seconds: float, rounds: int) -> list[Row]:
    """Arrow against PEFT's: the update alone, and the layer with it."""
    one = Layer(adapters, peft=True)
    bank, settings = one.layer.lora_banks["library"], RouterSettings("arrow", k=TOP)
    theirs = one.peft.base_model.model.layer
    arrow, nothing = theirs.lora_arrow["arrow_router"], nn.Identity()
    x = torch.randn(1, count, WIDTH)

    def update() -> Tensor:
        selection = select(x[0], bank, settings)
        return weighted_update(x[0], bank.a, bank.b, selection.indices, selection.weights)

    variants = {
        "update": update,
        "peft update": lambda: arrow(x, theirs.lora_A, theirs.lora_B, nothing, theirs.scaling),
        "layer": lambda: one(x, settings),
        "peft layer": lambda: theirs(x),
        "no adapter": lambda: one.frozen(x),
    }
    variants = {name: torch.inference_mode()(run) for name, run in variants.items()}
    differences = {
        what: agreement(variants[what](), variants[f"peft {what}"]())
        for what in ("update", "layer")
    }
    times = measure(variants, seconds, rounds)
    rows = []
    for what, difference in differences.items():
        series = {"ours": times[what], "peft": times[f"peft {what}"]}
        series |= {"no adapter": times["no adapter"]} if what == "layer" else {}
        rows.append(
            row({"what": what, "adapters": adapters, "tokens": count}, series, "ours", difference)
        )
    least = TIMES_FASTER.get((adapters, count))
    return [with_goal(rows[0], "peft", least=least) if least else rows[0], rows[1]]


def routers(adapters: int, count: int, seconds: float, rounds: int) -> Row:
    """Our routers on one layer against LAG."""
    one = Layer(adapters)
    x = torch.randn(1, count, WIDTH)
    difference = max(
        agreement(one(x, RouterSettings("lag", k=1)), one(x, ROUTERS["arrow top 1"])),
        agreement(one(x, RouterSettings("lag", k=adapters)), one(x, ROUTERS["spectr"])),
    )
    variants = {name: lambda router=router: one(x, router) for name, router in ROUTERS.items()}
    times = measure(variants, seconds, rounds)
    what = {"what": "router", "adapters": adapters, "tokens": count}
    return row(what, times, "lag", difference)


def scale(sizes: Iterable[int], count: int, seconds: float, rounds: int) -> Row:
    """LAG over libraries of several sizes, against the smallest."""
    layers = {str(size): Layer(size) for size in sizes}
    x = torch.randn(1, count, WIDTH)
    smallest, *_, largest = layers
    every = RouterSettings("lag", k=int(largest))
    difference = agreement(layers[largest](x, every), layers[largest](x, ROUTERS["spectr"]))
    variants = {name: lambda layer=layer: layer(x, LAG) for name, layer in layers.items()}
    times = measure(variants, seconds, rounds)
    times = {name if name == smallest else f"{name} adapters": ms for name, ms in times.items()}
    what = {"what": f"library, adapters {smallest}", "tokens": count}
    return row(what, times, smallest, difference)


def model(library: int, phase: str, seconds: float, rounds: int) -> Row:
    """A whole model with LAG over a library against the model with one adapter."""
    base = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)
    bare, plain, context = copy.deepcopy(base), copy.deepcopy(base), RoutingContext()
    # First the adapter of the one direction there is, to compare results.
    selectors: dict[str, Selector] = {"library": Oracle()}
    observers: list[Observer] = []
    router = AdapterRouter(RoutingContext(), {})
    layers = attach_all(plain, "all-linear", context)
    for path, linear in find_linears(base, "all-linear").items():
        a = torch.randn(library, RANK, linear.in_features) / linear.in_features**0.5
        b = torch.randn(library, linear.out_features, RANK) / 100
        layers[path].set("0", a[0], b[0], ALPHA / RANK)
        routed = bank_of(a, b, ALPHA / RANK)
        routed.serve("own", "0")
        attach_routing(linear, router, {"library": routed}, path)
    router.watch(base.base_model)
    prompts = torch.full((ROWS,), LENGTH)
    options = {"selectors": selectors, "observers": observers}
    routes = {
        "ours": (base, lambda: router.route(["own"] * ROWS, prompts, **options)),
        "one plain adapter": (plain, lambda: context.route(["0"] * ROWS)),
        "no adapter": (bare, nullcontext),
    }
    ids = tokens(LENGTH + 1)
    with ExitStack() as open_routes:
        start = PHASES[phase]
        variants = {
            name: start(*module_and_router, ids, open_routes)
            for name, module_and_router in routes.items()
        }
        difference = agreement(variants["ours"](), variants["one plain adapter"]())
        selectors["library"] = PerToken(LAG)
        observers.append(RouteCounts())
        variants["products alone"] = products_alone(base, ROWS * {"prefill": LENGTH}.get(phase, 1))
        times = measure(variants, seconds, rounds)
        spent = shares(variants["ours"])
    result = row({"what": f"model, {phase}", "adapters": library}, times, "ours", difference)
    figures = {"figures": {f"profile, {k} %": v for k, v in spent.items()}}
    return with_goal(result, "one plain adapter", least=1 / MOST) | figures


def products_alone(base: nn.Module, count: int) -> Callable[[], None]:
    """What LAG multiplies in a pass of so many tokens, with nothing between the products."""
    operands = []
    for bank in banks_of(base, "library").values():
        candidates = torch.rand(count, len(bank.names)).argsort(1)[:, : LAG.k]
        x, h = torch.randn(count, bank.arrows.shape[1]), torch.randn(count, RANK)
        operands.append((x, h, bank, candidates, candidates[:, 0].contiguous()))

    @torch.inference_mode()
    def step() -> None:
        for x, h, bank, candidates, best in operands:
            torch.mm(x, bank.arrows.T)
            candidate_products(x, bank.a, candidates)
            up_project(h, bank.b, best)

    return step


def prefill(base: nn.Module, route: Callable, ids: Tensor, _: ExitStack) -> Callable[[], Tensor]:
    """A route and a forward pass."""

    @torch.inference_mode()
    def step() -> Tensor:
        with route():
            return base(ids[:, :LENGTH], use_cache=False).logits

    return step


def decode(
    base: nn.Module, route: Callable, ids: Tensor, open_routes: ExitStack
) -> Callable[[], Tensor]:
    """One generated token, inside a route that stays open as in `generate`."""
    cache = DynamicCache(config=CONFIG)
    open_routes.enter_context(route())
    with torch.inference_mode():
        base(ids[:, :LENGTH], **{CACHE: cache})

    @torch.inference_mode()
    def step() -> Tensor:
        logits = base(ids[:, LENGTH:], **{CACHE: cache}).logits
        cache.crop(-1)
        return logits

    return step


PHASES: Mapping[str, Callable] = {"prefill": prefill, "decode": decode}


def shares(step: Callable[[], Tensor]) -> dict[str, float]:
    """Per cent of the processor's time by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            step()
    spent = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in profiler.key_averages():
        parts = set(event.key.removeprefix("aten::").split("_"))
        kind = next((kind for kind, names in KINDS.items() if parts & names), "rest")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: round(100 * time / total, 1) for kind, time in spent.items()}


if __name__ == "__main__":
    main("lag", __doc__, run)
