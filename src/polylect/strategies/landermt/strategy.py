"""LANDeRMT: only the neurons that matter to a direction learn, and a gate routes between them.

Zhu et al., ACL 2024 (aclanthology 2024.acl-long.656). `polylect detect` finds the layers and the
neurons; this strategy trains them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from polylect import plots
from polylect.data.batch import TranslationBatch
from polylect.did_you_mean import check_known
from polylect.layers.neurons.ffn import neuron_banks
from polylect.layers.neurons.gates import GateForm
from polylect.layers.neurons.row_layer import fill_gradients, mask_gradients
from polylect.layers.neurons.rows import NeuronRows, plain_copy
from polylect.library.neurons.file import check_detection
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.models.families import family_of
from polylect.strategies.base import TranslationModule
from polylect.strategies.landermt.report import scaling_of
from polylect.strategies.landermt.slices import (
    attach_ffn,
    attach_module,
    awareness_of,
    check_kinds,
    check_names,
    check_shared,
    owners_of,
    sets_of,
)


class LANDeRMT(TranslationModule):
    """Language-general neurons learn from all directions, specific ones from their owners alone.

    A neuron is owned by directions or by languages, as the file was made of either; a direction
    from s to t trains what s and t own, and one between languages of other directions can be
    translated without having been detected or trained. Neurons of feed-forward networks may have
    gates; output rows of modules have none.

    Args:
        neurons: the file that `polylect detect` wrote for this base.
        modules: kinds of neurons of the file to train, as in [self_attn.q_proj]; all by default.
        trained: "both" kinds of neurons, or "general" or "specific" ones only.
        gate: "token" (one openness per token), "neuron" (one per token and neuron), "constant", or
            "none" (all tuned neurons at full weight).
        gates: "per_direction", so that directions share nothing but general neurons; or "shared".
        literal: the gate multiplies the neurons' input as in equation 7, which changes the base's
            function at the start. By default it weighs what tuning changed, which does not.
        gate_width: of the gate's hidden layer.
        noise: the gate's noise at the end of the training; it grows linearly from 0.
        soft: gates stay between 0 and 1 after training; else they are cut to 0 or 1.
        openness: of a constant gate; with `budget`, the mean that the gates are drawn to.
        budget: factor of `|mean openness - openness|` in the loss (CLSR).
        scaling: "awareness" multiplies the gradients of each row by how aware the direction's
            languages are of it, see `RowBank`; "none".
        shared: all directions go through all tuned rows, as in one model for all of them, and
            train their own. By default a direction goes through its own rows and the base's.
        decay_frozen: rows that a step does not train are stepped all the same, with a gradient of
            zero: weight decay and the optimizer's momentum move them, those of nobody too.
        mask_at_step: gradients of all micro-batches reach all rows, and before the step what the
            direction of the last one does not own is set to zero. Else each has its own mask.
        language_names: prompts name languages; false: countries, as data.template=country does.
        detection: settings with which `neurons` is to have been detected, as `polylect detect`
            has them; null takes any.
    """

    between_stages = (
        *TranslationModule.between_stages, "neurons", "trained", "noise", "budget",
        "scaling", "decay_frozen", "mask_at_step", "detection",
    )  # fmt: skip

    def __init__(
        self,
        *,
        neurons: str,
        modules: Sequence[str] | None = None,
        trained: str = "both",
        gate: str = "token",
        gates: str = "per_direction",
        literal: bool = False,
        gate_width: int = 128,
        noise: int | float = 5.0,
        soft: bool = False,
        openness: int | float = 0.5,
        budget: int | float = 0.0,
        scaling: str = "none",
        shared: bool = False,
        decay_frozen: bool = False,
        mask_at_step: bool = False,
        language_names: bool = True,
        detection: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_known("strategy.trained", trained, ("both", "general", "specific"))
        check_known("strategy.gate", gate, ("token", "neuron", "constant", "none"))
        check_known("strategy.gates", gates, ("per_direction", "shared"))
        if gate_width < 1:
            raise ValueError(f"strategy.gate_width must be at least 1, got {gate_width}.")
        if not 0 <= openness <= 1:
            raise ValueError(f"strategy.openness must be between 0 and 1, got {openness}.")
        if noise < 0 or budget < 0:
            raise ValueError("strategy.noise and strategy.budget must not be negative.")
        if budget and gate not in ("token", "neuron"):
            raise ValueError(f"strategy.budget needs a gate that learns, not gate={gate}.")
        if literal and gate == "none":
            raise ValueError("strategy.literal says where the gate stands; it needs a gate.")
        check_known("strategy.scaling", scaling, ("none", "awareness"))
        check_shared(shared, decay_frozen, mask_at_step)
        if self._pairs():
            check_names(language_names, self.template_name)
        self.neurons, self.trained = neurons, trained
        self.kinds = None if modules is None else tuple(modules)
        self.scaling, self.shared = scaling, shared
        self.decay_frozen, self.mask_at_step = decay_frozen, mask_at_step
        self.detection = detection
        self.gate, self.gates, self.gate_width = gate, gates, gate_width
        self.literal, self.soft = literal, soft
        self.noise, self.openness, self.budget = float(noise), float(openness), float(budget)
        self.identity_at_start = not literal
        self._file: ModuleNeurons | None = None
        self._last = ""  # direction of the micro-batch that came last

    # The structure: which neurons. A checkpoint holds it, so that it is complete without the file.

    def structure(self) -> dict[str, Any]:
        return self._found().structure()

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        self._file = ModuleNeurons.from_structure(structure)

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the same neurons; raises as `load_owned`, also for other neurons."""
        former = ModuleNeurons.from_structure(checkpoint["polylect"]["structure"])
        if part := self._found().difference(former):
            raise ValueError(
                f"the stage before trained other neurons than those of {self.neurons}: {part} "
                "differ."
            )
        self.load_owned(checkpoint)

    def _found(self) -> ModuleNeurons:
        if self._file is None:
            file = ModuleNeurons.read(self.neurons)
            check_detection(self.neurons, self.detection, file.any.about)
            self._file = file if self.kinds is None else file.of_kinds(self.kinds)
        return self._file

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        found, family = self._found(), family_of(self.backbone.config)
        found.any.check_base(self.base_fingerprint)
        for_rows = self.shared or self.scaling != "none"
        check_kinds(self.neurons, found, family, self.gate, for_rows)
        owners = self._owners()
        for kind, file in found.kinds.items():
            for position, layer in enumerate(file.layers):
                block = self.backbone.get_submodule(family.layers)[layer]
                sets = sets_of(file, position, owners, self.trained, self.decay_frozen)
                if kind == FFN and sets:
                    gates = self._gates()
                    attach_ffn(block, family, layer, sets, gates, self.literal, self.context)
                elif sets:
                    scores = awareness_of(file, layer, owners) if self.scaling != "none" else {}
                    how = {"shared": self.shared, "whole": self.mask_at_step, "awareness": scores}
                    attach_module(block, kind, layer, sets, self.context, **how)

    def _pairs(self) -> list[str]:
        """Return the directions of translation; monolingual text goes through the base alone."""
        return [direction for direction in self.directions if "-" in direction]

    def _owners(self) -> list[str]:
        return owners_of(self.neurons, self._found().any.directions, self._pairs())

    def _gates(self) -> GateForm:
        names = ["shared"] if self.gates == "shared" else self._pairs()
        return GateForm(self.gate, names, self.gate_width, self.soft, self.openness)

    @property
    def _gates_learn(self) -> bool:
        return self.gate in ("token", "neuron")

    # The loop.

    @contextmanager
    def routing(self, batch: TranslationBatch) -> Iterator[None]:
        names = [d if self.serves(d) else "" for d in batch.directions]
        with self.context.route(names, batch.attention_mask):
            self._set_noise()
            if self.training:
                self._note(names)
            yield

    def serves(self, direction: str) -> bool:
        """Return whether a direction was trained, or both of its languages were and own neurons."""
        if direction in self._pairs():
            return True
        owners, sides = self._owners(), direction.split("-")
        per_direction = self.gate != "none" and self.gates == "per_direction"
        return len(sides) == 2 and set(sides) <= set(owners) and not per_direction

    def check_direction(self, direction: str) -> None:
        if not self.serves(direction):
            super().check_direction(direction)

    def _note(self, names: Sequence[str]) -> None:
        """Note the direction whose mask holds at the step; raises ValueError for several."""
        self._last = names[-1]
        several = self._trainer is not None and self.trainer.world_size > 1
        if self.mask_at_step and (several or len(set(names)) > 1):
            raise ValueError(
                "strategy.mask_at_step=true takes the direction of the last micro-batch, of which "
                "there is one with one process and data.mixing=by_direction only."
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.mask_at_step:
            mask_gradients(self.backbone, self._last)
        if self.decay_frozen:
            fill_gradients(self.backbone)

    def _set_noise(self) -> None:
        if not self.training or self._trainer is None or not self._gates_learn:
            return
        share = self.trainer.global_step / max(int(self.trainer.estimated_stepping_batches), 1)
        for bank in neuron_banks(self.backbone).values():
            for gate in bank.gates.values():
                gate.noise = self.noise * share

    def auxiliary_loss(self) -> Float[Tensor, ""]:
        if not self.budget or not self.context.losses:
            return super().auxiliary_loss()
        means = torch.stack(list(self.context.losses.values()))
        return self.budget * (means - self.openness).abs().mean()

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(_kind(name), []).append(parameter)
        return [{"params": kind, "unit": 0, "name": name} for name, kind in groups.items()]

    def telemetry(self) -> dict[str, float]:
        return {
            f"routing/{name}/openness/{direction}": float(mean)
            for name, bank in neuron_banks(self.backbone).items()
            for direction, mean in bank.openness.items()
        }

    def facts(self) -> dict[str, Any]:
        scaled = self.scaling != "none"
        return {"scaling": scaling_of(self.backbone, self._pairs())} if scaled else {}

    def export(self, folder: Path) -> None:
        """Write each direction's tuned rows under `folder/rows`, to be put on the base again."""
        for direction in self._pairs():
            rows = NeuronRows.from_model(self.backbone, direction, self.base_fingerprint)
            rows.write(folder / "rows" / f"{direction}.safetensors")

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw the neurons, their overlap, and gates where they learn and were logged."""
        figures = plots.of_kinds(self._found())
        if self._gates_learn and (folder / "metrics.csv").is_file():
            with suppress(ValueError):  # a run shorter than the logging interval tells of none
                figures |= plots.of_gates(folder)
        return figures

    @torch.no_grad()
    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return the base with the direction's tuned rows in place of its own.

        Raises ValueError with a gate: only strategy.gate=none can be written so.
        """
        rows = NeuronRows.from_model(self.backbone, name, self.base_fingerprint)
        rows.check_plain()
        merged = plain_copy(self.backbone)
        rows.put_on(merged)
        with self.context.route([name] * len(probe)):
            expected = self.backbone(input_ids=probe).logits
        return merged, (merged(input_ids=probe).logits - expected).abs().max().item()


def _kind(name: str) -> str:
    if ".neuron_bank.gates." in name:
        return "gates"
    return "general" if name.endswith(".general") else "specific"
