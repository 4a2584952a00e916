"""LANDeRMT: only the neurons that matter to a direction learn, and a gate routes between them.

Zhu et al., ACL 2024 (aclanthology 2024.acl-long.656). `polylect detect` finds the layers and the
neurons; this strategy trains them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polylect import plots
from polylect.data.batch import TranslationBatch
from polylect.did_you_mean import check_known
from polylect.layers.neurons.bank import NeuronBank, ownership
from polylect.layers.neurons.ffn import attach_neurons, neuron_banks
from polylect.layers.neurons.gates import AwarenessGate, ConstantGate
from polylect.layers.neurons.rows import NeuronRows, plain_copy
from polylect.library.neuron_file import NeuronFile
from polylect.models.families import Family, family_of
from polylect.strategies.base import TranslationModule


class LANDeRMT(TranslationModule):
    """Language-general neurons learn from all directions, specific ones from their owners alone.

    Args:
        neurons: the file that `polylect detect` wrote for this base.
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
    """

    between_stages = (
        *TranslationModule.between_stages, "neurons", "trained", "noise", "budget",
    )  # fmt: skip

    def __init__(
        self,
        *,
        neurons: str,
        trained: str = "both",
        gate: str = "token",
        gates: str = "per_direction",
        literal: bool = False,
        gate_width: int = 128,
        noise: int | float = 5.0,
        soft: bool = False,
        openness: int | float = 0.5,
        budget: int | float = 0.0,
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
        self.neurons, self.trained = neurons, trained
        self.gate, self.gates, self.gate_width = gate, gates, gate_width
        self.literal, self.soft = literal, soft
        self.noise, self.openness, self.budget = float(noise), float(openness), float(budget)
        self.identity_at_start = not literal
        self._file: NeuronFile | None = None

    # The structure: which neurons. A checkpoint holds it, so that it is complete without the file.

    def structure(self) -> dict[str, Any]:
        return {"neurons": dict(vars(self._neuron_file()))}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        self._file = NeuronFile(**structure["neurons"])

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the same neurons; raises as `load_owned`, also for other neurons."""
        former = checkpoint["polylect"]["structure"].get("neurons", {})
        for part in ("layers", "selected", "general", "specific"):
            here = torch.as_tensor(getattr(self._neuron_file(), part))
            if not torch.equal(torch.as_tensor(former.get(part, ())), here):
                raise ValueError(
                    f"the stage before trained other neurons than those of {self.neurons}: {part} "
                    "differ."
                )
        self.load_owned(checkpoint)

    def _neuron_file(self) -> NeuronFile:
        if self._file is None:
            self._file = NeuronFile.read(self.neurons)
        return self._file

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        file, family = self._neuron_file(), family_of(self.backbone.config)
        file.check_base(self.base_fingerprint)
        if missing := [d for d in self._pairs() if d not in file.directions]:
            raise ValueError(
                f"{self.neurons}: holds no neurons of {', '.join(missing)}; run `polylect detect` "
                f"with data.directions=[{','.join(self._pairs())}]."
            )
        for position in range(len(file.layers)):
            self._attach_layer(file, position, family)

    def _pairs(self) -> list[str]:
        """Directions of translation; monolingual text goes through the base alone."""
        return [direction for direction in self.directions if "-" in direction]

    def _attach_layer(self, file: NeuronFile, position: int, family: Family) -> None:
        layer = file.layers[position]
        block = self.backbone.get_submodule(family.layers)[layer]
        rows = {path: block.get_submodule(path) for path in family.projections[:-1]}
        down = block.get_submodule(family.down)
        at = [file.directions.index(direction) for direction in self._pairs()]
        sets = ownership(
            self._pairs(),
            file.general[position],
            file.specific[position][at],
            file.selected[position][at],
        )
        sets = [s for s in sets if self.trained in ("both", "general" if s.general else "specific")]
        if not sets:
            return
        bank = NeuronBank(
            sets,
            down.in_features,
            self._gates(down.out_features, down.in_features),
            self.literal,
            self.context,
            f"layer_{layer}",
            down.weight.device,
        )
        attach_neurons(block.get_submodule(family.ffn), rows, down, bank)

    def _gates(self, hidden: int, neurons: int) -> dict[str, nn.Module]:
        if self.gate == "none":
            return {}
        names = ["shared"] if self.gates == "shared" else self._pairs()
        if self.gate == "constant":
            return {name: ConstantGate(self.openness) for name in names}
        width = neurons if self.gate == "neuron" else 1
        return {name: AwarenessGate(hidden, self.gate_width, width, self.soft) for name in names}

    @property
    def _gates_learn(self) -> bool:
        return self.gate in ("token", "neuron")

    # The loop.

    @contextmanager
    def routing(self, batch: TranslationBatch) -> Iterator[None]:
        names = [d if d in self.directions and "-" in d else "" for d in batch.directions]
        with self.context.route(names, batch.attention_mask):
            self._set_noise()
            yield

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

    def export(self, folder: Path) -> None:
        """Write each direction's tuned rows under `folder/rows`, to be put on the base again."""
        for direction in self._pairs():
            rows = NeuronRows.from_model(self.backbone, direction, self.base_fingerprint)
            rows.write(folder / "rows" / f"{direction}.safetensors")

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw the neurons, their overlap, and gates where they learn and were logged."""
        figures = plots.of_detection(self._neuron_file())
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
