"""Mix-MoE: experts that keep the languages, experts that learn to translate, and a router.

Arxiv 2605.24681. Feed-forward networks become mixtures of two groups: LM experts, slices of the
base's networks, which stage "monolingual" trains on monolingual text; and MT experts, which stage
"parallel" trains on translations while the LM experts keep still. Each stage is a run; the second
begins from the first by `init_from`.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polylect import plots
from polylect.data.batch import TranslationBatch
from polylect.did_you_mean import check_known, did_you_mean
from polylect.layers.experts.ffn import PARTS, expert_layers
from polylect.layers.experts.losses import CollapseAlarm
from polylect.layers.experts.metrics import router_losses, routing_metrics, shares
from polylect.layers.experts.routers import Routing
from polylect.layers.tokens import watch_tokens
from polylect.library.neurons.file import NeuronFile
from polylect.models.dense import dense_copy
from polylect.models.mixture import Mixture, put_experts, save_mixture
from polylect.models.vocabulary.untrained_tokens import warn_if_tags_collapse
from polylect.strategies.base import TranslationModule, prompt_lengths
from polylect.strategies.expert_report import write_report

log = logging.getLogger(__name__)

STAGES = {
    "monolingual": ("lm_experts", "lm_router"),
    "parallel": ("mt_experts", "mt_router"),
    "joint": PARTS,
}
"""What trains in each stage."""

_OF_MT = (".expert_mt.", ".expert_router.mt.", ".expert_router.gate.")


class MixMoE(TranslationModule):
    """Two groups of experts in each feed-forward network, trained one after the other or together.

    Args:
        stage: "monolingual", "parallel", or "joint" for both in one run.
        lm_experts: in each layer.
        mt_experts: likewise; by default as many, and none in stage "monolingual". There they may
            exist too, frozen, when the stages change places; in "joint" 0 leaves one group.
        layers, slicing, mt_start, mt_width, gating, top, features, feature_size, window, seed: see
            `polylect.models.mixture.Mixture`.
        activations: for slicing "clustered", the file that `polylect detect` wrote for this base:
            neurons that are active in the same directions go together.
        balance: factor of the loss that spreads tokens over the experts of a group.
        z_loss: factor of the loss that keeps the router's logits small.
        lm_prior: factor of the loss that pulls tokens of monolingual text to the LM experts, where
            such text is replayed: monolingual directions among data.directions.
        unfreeze: what trains beside what the stage trains: of lm_experts, lm_router, mt_experts,
            mt_router (with the gate between groups), and rest (attention, norms, embeddings).
        collapse: an expert with less than this part of a fair share of its group's tokens, for
            `collapse_steps` batches in a row, is warned of; 0 for never.
    """

    between_stages = ("*",)  # `load_stage` compares them

    def __init__(
        self,
        *,
        stage: str = "joint",
        lm_experts: int = 2,
        mt_experts: int | None = None,
        layers: int | Sequence[int] = 1,
        slicing: str = "contiguous",
        activations: str | None = None,
        mt_start: str = "zero",
        mt_width: int | None = None,
        gating: str = "group",
        top: int | None = None,
        features: str = "fft",
        feature_size: int | None = None,
        window: int = 32,
        seed: int = 0,
        balance: int | float = 0.01,
        z_loss: int | float = 0.0,
        lm_prior: int | float = 0.0,
        unfreeze: Sequence[str] = (),
        collapse: int | float = 0.1,
        collapse_steps: int = 100,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_known("strategy.stage", stage, STAGES)
        for part in unfreeze:
            if part not in (*PARTS, "rest"):
                hint = did_you_mean(part, (*PARTS, "rest"))
                raise ValueError(f"strategy.unfreeze names {part}, which does not exist; {hint}")
        if mt_experts is None:
            mt_experts = 0 if stage == "monolingual" else lm_experts
        try:
            self.mixture = Mixture(
                layers=layers, lm_experts=lm_experts, mt_experts=mt_experts, slicing=slicing,
                mt_start=mt_start, mt_width=mt_width, gating=gating, top=top, features=features,
                feature_size=feature_size, window=window, seed=seed,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"strategy: {error}") from error
        self.trained = tuple(dict.fromkeys((*STAGES[stage], *unfreeze)))
        self.activations = activations
        self.factors = {"balance": balance, "z": z_loss, "lm_prior": lm_prior}
        self._check_losses(stage)
        self.identity_at_start = self.mixture.starts_as_base
        self._alarm = CollapseAlarm(collapse, collapse_steps) if collapse else None
        self._rebuilding = False
        self._owns_rest = "rest" in self.trained  # or it was in a stage before
        self._mask: Tensor | None = None  # of the batch last routed
        self._directions: tuple[str, ...] = ()
        self._auxiliary: dict[str, Tensor] = {}

    def _check_losses(self, stage: str) -> None:
        if min(self.factors.values()) < 0:
            raise ValueError("strategy.balance, z_loss and lm_prior must not be negative.")
        if stage == "parallel" and not self.mixture.mt_experts:
            raise ValueError("strategy.stage=parallel trains MT experts: mt_experts must not be 0.")
        if not self.factors["lm_prior"]:
            return
        if "mt_router" not in self.trained or all("-" in d for d in self.directions):
            raise ValueError(
                "strategy.lm_prior needs a gate that trains (not stage=monolingual) and "
                "monolingual text: name a language among data.directions, as in [en-de,de]."
            )

    # The structure.

    def structure(self) -> dict[str, Any]:
        return {"mixture": dataclasses.asdict(self.mixture), "rest": self._owns_rest}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        self._owns_rest = structure["rest"]
        self._rebuilding = True  # the checkpoint brings slices, and the file may be gone

    def attach(self) -> None:
        put_experts(self.backbone, self.mixture, self.context, self._activations())

        put = partial(setattr, self.context, "tokens")
        watch_tokens(self.backbone.base_model, self.context.prompt_lengths, put)
        self.backbone.requires_grad_(False)
        for name, parameters in self.parts().items():
            for parameter in parameters:
                parameter.requires_grad_(name in self.trained)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        warn_if_tags_collapse(self.backbone, self.tokenizer, self.template, self.directions)

    def _activations(self) -> Float[Tensor, "layers neurons directions"] | None:
        if self.mixture.slicing != "clustered" or self._rebuilding:
            return None
        if self.activations is None:
            raise ValueError(
                "strategy.slicing=clustered needs strategy.activations=neurons.safetensors, a file "
                "that `polylect detect` writes for this base."
            )
        file = NeuronFile.read(self.activations)
        file.check_base(self.base_fingerprint)
        return file.activation.permute(1, 2, 0)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return all parameters, by what they are:
        those of the experts and routers, and the rest.
        """
        parts: dict[str, list[nn.Parameter]] = {name: [] for name in PARTS}
        for layer in expert_layers(self.backbone).values():
            for name, parameters in layer.parts().items():
                parts[name] += parameters
        expert_ids = {id(p) for parameters in parts.values() for p in parameters}
        return parts | {"rest": [p for p in self.backbone.parameters() if id(p) not in expert_ids]}

    def owned_names(self) -> set[str]:
        """Return also what another stage has trained, or may have: it is no longer the base's."""
        parts = self.parts()
        tuned = parts["lm_experts"] + (parts["rest"] if self._owns_rest else [])
        tuned_ids = {id(p) for p in tuned}
        return super().owned_names() | {n for n, p in self.named_parameters() if id(p) in tuned_ids}

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the stage before; MT experts that it had not made yet stay new."""
        structure = checkpoint.get("polylect", {}).get("structure", {})
        self._owns_rest |= structure.get("rest", False)
        self.mixture.check_stage_before(structure.get("mixture", {}))
        new = {name for name in self.owned_names() if any(part in name for part in _OF_MT)}
        if new & checkpoint["state_dict"].keys():
            new = set()
        self.load_owned(checkpoint, but=new)
        if new and self.mixture.mt_start == "copies":  # of the experts that were loaded
            for layer in expert_layers(self.backbone).values():
                layer.copy_to_mt()

    # The loop.

    @contextmanager
    def routing(self, batch: TranslationBatch) -> Iterator[None]:
        with self.context.route(batch.directions, batch.attention_mask, prompt_lengths(batch)):
            self._mask, self._directions = batch.attention_mask.bool(), batch.directions
            yield

    def routings(self) -> Iterator[tuple[str, Routing, Bool[Tensor, "rows length"]]]:
        """Yield what each layer's router decided in the last forward, if it saw the whole batch."""
        for name, routing in self.context.routings.items():
            if self._mask is not None and len(routing.logits) == self._mask.numel():
                yield name, routing, self._mask

    def groups(self) -> dict[str, range]:
        """Return the numbers of the experts of each group, "lm" and, if there are any, "mt"."""
        lm, mt = self.mixture.lm_experts, self.mixture.mt_experts
        return {"lm": range(lm)} | ({"mt": range(lm, lm + mt)} if mt else {})

    def auxiliary_loss(self) -> Float[Tensor, ""]:
        """Return the mean over layers of the routers' losses times their factors."""
        factors = {name: factor for name, factor in self.factors.items() if factor}
        groups = {n: g for n, g in self.groups().items() if f"{n}_router" in self.trained}
        text = torch.tensor(["-" not in d for d in self._directions], device=self.device)
        layers = [
            router_losses(routing, groups, mask.flatten(), text[:, None].expand_as(mask).flatten())
            for _, routing, mask in self.routings()
        ]
        means = {n: torch.stack([own[n] for own in layers]).mean() for n in factors if layers}
        self._auxiliary = {name: mean.detach() for name, mean in means.items()}
        total = super().auxiliary_loss()
        for name, mean in means.items():
            total = total + factors[name] * mean
        return total

    def on_train_batch_end(self, *_: Any) -> None:
        if self._alarm is None:
            return
        fair_shares = {
            f"{layer}/{group}": share * len(share)  # 1 is a fair share
            for layer, routing, mask in self.routings()
            for group, share in shares(routing, self.groups(), mask.flatten()).items()
        }
        for name, expert in self._alarm.step(fair_shares):
            layer, _, group = name.partition("/")
            log.warning(
                "%s: %s expert %d has had less than %g of a fair share of the tokens for %d "
                "batches; a larger strategy.balance spreads them",
                *(layer, group.upper(), expert, self._alarm.threshold, self._alarm.patience),
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        parts = self.parts()
        groups = [{"params": parts[name], "unit": 0, "name": name} for name in self.trained]
        return [group for group in groups if group["params"]]

    def telemetry(self) -> dict[str, float]:
        values = {f"train/aux/{name}": float(value) for name, value in self._auxiliary.items()}
        for layer, routing, mask in self.routings():
            metrics = routing_metrics(routing, self.groups(), mask, self._directions)
            values |= {f"routing/{layer}/{name}": value for name, value in metrics.items()}
        return values

    # Use.

    def export(self, folder: Path) -> None:
        """Write the model under `folder/model`, for `polylect.models.mixture.load_mixture`."""
        save_mixture(self.backbone, self.mixture, self.tokenizer, folder / "model")

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw what the experts do with validation text, after training.

        Writes the numbers to experts.json.
        """
        data = self._trainer.datamodule if self._trainer is not None else None
        if data is None or not data.directions_of("val"):
            return {}
        write_report(folder / plots.EXPERTS, self, data)
        return plots.of_experts(folder)

    def merge_names(self) -> list[str]:
        return ["model"]

    @torch.no_grad()
    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return a plain model, the same for all directions, where the routers are constant.

        They are if they are uniform or a group has one expert; MT experts then widen the
        feed-forward networks. Else raises ValueError.
        """
        plain = dense_copy(self.backbone)
        none = torch.zeros(len(probe), dtype=torch.long, device=probe.device)
        with self.context.route([name] * len(probe), None, none):
            expected = self.backbone(input_ids=probe).logits
        return plain, (plain(input_ids=probe).logits - expected).abs().max().item()
