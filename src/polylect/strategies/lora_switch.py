"""LoRA-switch: one adapter per direction on a frozen base, switched by an index.

LoRA is Hu et al. 2021: `y = W x + (alpha / r) B A x`, with B zero at the start.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from polylect import plots
from polylect.data.batch import TranslationBatch, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.did_you_mean import did_you_mean
from polylect.layers.lora.attach import attach_all, lora_layers
from polylect.layers.lora.merge import merged_copy
from polylect.library import Adapter, AdapterLibrary, cut_from
from polylect.library.calibration import write_inputs
from polylect.models.families import family_of
from polylect.strategies.base import TranslationModule
from polylect.strategies.lora.input_statistics import initialise_from_inputs, input_means, own_text
from polylect.strategies.lora.settings import (
    FactorSettings,
    adapter_of_directions,
    factor_groups,
    rank_of_adapters,
)
from polylect.strategies.lora.start import begin_with, start_of_adapters
from polylect.strategies.loss import target_losses

MOST_ADAPTERS = 16
"""Whose effect on every direction is measured after training: the work grows with the square."""


class LoRASwitch(TranslationModule):
    """Adapters trained together in one pass over mixed batches, each as if trained alone.

    Each adapter's loss is the mean over its own target tokens, its gradient is clipped on its own,
    and an adapter whose directions are absent from a step does not move.

    Args:
        adapters: "per_direction" (one each), "shared" (one for all: the baseline that interferes),
            or a mapping from adapter to the directions that share it.
        rank: of every adapter, or a mapping from adapter to its rank.
        alpha: the update is scaled by alpha / rank (rsLoRA: alpha / sqrt(rank)).
        targets: "attention", "ffn", "all", or name patterns of linear layers.
        dropout: on the adapter's input, in training.
        rslora: rank-stabilised scaling, Kalajdzievski 2023.
        init_scale: factor of the A that training begins with; 1 is PEFT's. Routers read an
            adapter's inputs off A, where a short training hides under a random A: 0.01 for
            adapters that are to be routed, or another `init`.
        init, init_sentences, train_a, loraplus_lr_ratio: see `FactorSettings`. An A that is not
            random begins with the training, of adapters whose weights come from nowhere else.
        start: PEFT folder whose weights such adapters begin with, or a mapping from adapter to such
            a folder; the others begin with A as `init` says, and B zero. See `begin_with`.
    """

    between_stages = (
        *TranslationModule.between_stages, "adapters", "rank", "targets", "dropout", "init_scale",
        "init", "init_sentences", "train_a", "loraplus_lr_ratio",
    )  # fmt: skip

    frozen_base: ClassVar[bool] = True

    def __init__(
        self,
        *,
        adapters: str | Mapping[str, Sequence[str]] = "per_direction",
        rank: int | Mapping[str, int] = 16,
        alpha: int | float = 16,
        targets: str | Sequence[str] = "all",
        dropout: int | float = 0.0,
        rslora: bool = False,
        init_scale: int | float = 1.0,
        init: str = "kaiming",
        init_sentences: int = 300,
        train_a: bool = True,
        loraplus_lr_ratio: int | float = 1.0,
        start: str | Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        self._adapter_of = adapter_of_directions(adapters, common.get("directions", ()))
        super().__init__(**common)
        self.ranks = rank_of_adapters(rank, self.adapters)
        self.factors = FactorSettings(init, init_scale, init_sentences, train_a, loraplus_lr_ratio)
        self.factors.check_adapters(self.adapters)
        if alpha <= 0:
            raise ValueError(f"strategy.alpha must be positive, got {alpha}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"strategy.dropout must be at least 0 and below 1, got {dropout}.")
        self.alpha, self.dropout, self.rslora = float(alpha), float(dropout), rslora
        self.targets = targets
        self.start = start_of_adapters(start, self.adapters, init)
        self._new = set(self.start if init == "kaiming" else self.adapters)

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters, in the order of the directions."""
        return list(dict.fromkeys(self._adapter_of.values()))

    def units(self) -> dict[str, int]:
        index = {adapter: i for i, adapter in enumerate(self.adapters)}
        return {direction: index[adapter] for direction, adapter in self._adapter_of.items()}

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        patterns = self.targets
        if isinstance(patterns, str):
            patterns = family_of(self.backbone.config).targets(patterns)
        options = {
            "rslora": self.rslora,
            "dropout": self.dropout,
            "init_scale": self.factors.init_scale,
            "train_a": self.factors.train_a,
        }
        for path, layer in attach_all(self.backbone, patterns, self.context).items():
            for adapter in self.adapters:
                self._check_rank(adapter, path, layer.in_features)
                layer.add(adapter, self.ranks[adapter], self.alpha, **options)

    def _check_rank(self, adapter: str, path: str, width: int) -> None:
        if self.factors.init != "kaiming" and self.ranks[adapter] > width:
            raise ValueError(
                f"strategy.init={self.factors.init} finds at most {width} directions in the inputs "
                f"of {path}, and strategy.rank of adapter {adapter} is {self.ranks[adapter]}: take "
                "a lower one, or strategy.init=kaiming."
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        for adapter in sorted(self._new & self.start.keys()):
            begin_with(self.start[adapter], self.backbone, adapter, self.base_fingerprint)
        self._new -= self.start.keys()
        if self._new:
            initialise_from_inputs(
                self,
                self._own_text(self.trainer.datamodule),
                self.factors,
                self._new,
                self.trainer.strategy.broadcast,
            )
            self._new.clear()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._new.clear()

    def _own_text(self, data: Any) -> EvaluationBatches:
        return own_text(data, self._adapter_of, self.factors.init_sentences, self.tokenizer)

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        return self.context.route([self.adapter(d) for d in batch.directions])

    def adapter(self, direction: str) -> str:
        """Return the adapter that serves a direction.

        Monolingual text has the base alone by default.

        Raises ValueError with the nearest direction.
        """
        if direction not in self._adapter_of and "-" not in direction:
            return ""
        if direction not in self._adapter_of:
            hint = did_you_mean(direction, self._adapter_of)
            raise ValueError(f"no adapter serves direction {direction}; {hint}")
        return self._adapter_of[direction]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return factor_groups(lora_layers(self.backbone), self.adapters, self.factors)

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the adapters that are trained here, and leave those of other directions.

        An adapter that the checkpoint lacks stays new. Raises as `load_owned`, also if it has none.
        """
        owned = self.owned_names()
        tensors = {name: t for name, t in checkpoint["state_dict"].items() if name in owned}
        if tensors:
            checkpoint = checkpoint | {"state_dict": tensors}
        self._new -= {name.rpartition(".")[2] for name in tensors}
        self.load_owned(checkpoint, but=owned - tensors.keys() if tensors else frozenset())

    def export(self, folder: Path) -> None:
        """Write each adapter as a plain PEFT folder under `folder/adapters`.

        Adapters that began with their inputs are for routing: the means of what their layers are
        given now lie beside them.
        """
        library, layers = AdapterLibrary(folder / "adapters"), lora_layers(self.backbone)
        for adapter in self.adapters:
            about = self.about | {
                "directions": [d for d, a in self._adapter_of.items() if a == adapter],
                "template": self.template_name,
                "base_model": getattr(self.backbone.config, "_name_or_path", ""),
                "base_fingerprint": self.base_fingerprint,
                "base_cut_from": cut_from(self.backbone),
            }
            library.save(adapter, Adapter.of_layers(layers, adapter, about))
        if self.factors.init != "kaiming" and self._trainer is not None:
            means = input_means(self, self._own_text(self._trainer.datamodule))
            for adapter in self.adapters:
                write_inputs(library, adapter, means[adapter])

    def merge_names(self) -> list[str]:
        return self.adapters

    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return the base with one adapter added to its weights."""
        return merged_copy(self.backbone, name, probe)

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw what each adapter does to each direction, and how alike the adapters are.

        The numbers of the first are in transfer.json. One adapter has nothing to compare.
        """
        if len(self.adapters) < 2:
            return {}
        figures = {"adapter_overlap": plots.update_overlap(AdapterLibrary(folder / "adapters"))}
        data = self._trainer.datamodule if self._trainer is not None else None
        if data is None or not data.directions_of("val"):
            return figures
        if len(self.adapters) > MOST_ADAPTERS:
            print(f"no plots/transfer.png: it would compare {len(self.adapters)} adapters.")
            return figures
        measured = self.transfer(data)
        text = json.dumps(measured, ensure_ascii=False, indent=1)
        (folder / "transfer.json").write_text(text + "\n", encoding="utf-8")
        return figures | {"transfer": plots.transfer(measured)}

    @torch.no_grad()
    def transfer(self, data: Any, sentences: int = 32) -> dict[str, Any]:
        """Return the validation loss of every direction with every adapter, and with none.

        Args:
            data: a `TranslationData` with validation corpora.
            sentences: the first ones of each direction, without those above `data.max_length`.

        Returns:
            "adapters" and "directions", their names; "loss", nats per target token, a row for each
            adapter; "base", the same without one.
        """
        batches = {}
        for direction in (d for d in data.directions_of("val") if "-" in d):
            examples = data.examples(direction, "val", sentences)
            examples = [example for example in examples if example.length <= data.max_length]
            if examples:
                limits = data.tokens_per_batch, data.max_rows, pad_id(self.tokenizer)
                batches[direction] = EvaluationBatches(examples, *limits)
        self.eval()
        names = ["", *self.adapters]
        losses = {name: [self._mean_loss(own, name) for own in batches.values()] for name in names}
        base = losses.pop("")
        return {
            "adapters": list(losses),
            "directions": list(batches),
            "loss": list(losses.values()),
            "base": base,
        }

    def _mean_loss(self, batches: EvaluationBatches, adapter: str) -> float:
        nats, tokens = 0.0, 0
        for batch in batches:
            batch = batch.to(self.device)
            with self.context.route([adapter] * batch.rows):
                losses, _ = target_losses(self.backbone, batch)
            nats, tokens = nats + losses.sum().item(), tokens + len(losses)
        return nats / tokens
