"""Short random projections of gradients, of which inner products are estimated without bias.

Every entry of a gradient gets a random sign, and entries whose positions are equal modulo the size
of the sketch are added up: the count sketch (Charikar et al. 2002) with fixed buckets. For two
gradients g and h the inner product of their sketches has the mean <g, h>, and a variance of about
|g|² |h|² / size. Signs are products of a random sign per row and one per column, so that a matrix
of any size needs no more than its rows and columns of memory. The size is a prime, since otherwise
a column whose entries are all large could fall into few buckets.
"""

import re
import zlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GradientSketch:
    """Sketches of the gradients of some parameters, one after the other in one vector.

    Parameters lie layer by layer, and none shares a place with another: gradients that reach
    different parameters have sketches whose inner product is exactly zero.

    Args:
        parameters: by name.
        size: numbers kept of each parameter, raised to the next prime; a parameter that has no
            more entries than that is kept exactly.
        seed: of the signs, which also depend on the parameter's name and on nothing else.

    Attributes:
        layers: place of each layer in the vector, by name: see `layer_of`.
        length: of the vector.

    Raises:
        ValueError: the size is below 2.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], size: int, seed: int) -> None:
        if size < 2:
            raise ValueError(f"the size of a sketch must be at least 2, got {size}.")
        self.size = next_prime(size)
        self.layers: dict[str, slice] = {}
        self.length = 0
        self._places: dict[str, slice] = {}
        self._signs: dict[str, tuple[Tensor, Tensor]] = {}
        groups: dict[str, list[str]] = {}
        for name in parameters:
            groups.setdefault(layer_of(name), []).append(name)
        for layer, names in groups.items():
            begin = self.length
            for name in names:
                self._add(name, parameters[name], seed)
            self.layers[layer] = slice(begin, self.length)

    def _add(self, name: str, parameter: nn.Parameter, seed: int) -> None:
        columns = parameter.shape[-1] if parameter.dim() > 1 else parameter.numel()
        rows = parameter.numel() // columns
        generator = generator_of(seed, name)
        signs = torch.randint(0, 2, (rows + columns,), generator=generator) * 2 - 1
        signs = signs.to(parameter.device, torch.float32)
        self._signs[name] = signs[:rows].unsqueeze(1), signs[rows:]
        end = self.length + min(parameter.numel(), self.size)
        self._places[name], self.length = slice(self.length, end), end

    def add(
        self, into: Float[Tensor, " length"], gradients: Mapping[str, Tensor], factor: float = 1.0
    ) -> None:
        """Adds the sketch of a gradient, times a factor, to a vector of `length`, in place.

        Args:
            gradients: of the parameters that it reaches, by name, each of its parameter's shape.
        """
        for name, gradient in gradients.items():
            into[self._places[name]].add_(self._fold(name, gradient), alpha=factor)

    def _fold(self, name: str, gradient: Tensor) -> Float[Tensor, " size"]:
        rows, columns = self._signs[name]
        shape = rows.numel(), columns.numel()
        flat = (gradient.to(torch.float32).reshape(shape) * columns).mul_(rows).view(-1)
        whole = flat.numel() // self.size * self.size
        if not whole:
            return flat
        folded = flat[:whole].view(-1, self.size).sum(0)
        folded[: flat.numel() - whole] += flat[whole:]
        return folded


def generator_of(seed: int, what: object) -> torch.Generator:
    """Return random numbers for one thing of a seed; torch's own seeds have 32 bits on a CPU."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{what}".encode()))


def layer_of(parameter: str) -> str:
    """Return the layer that a parameter is counted to.

    It is the block, such as "model.layers.3" for all that lies below it; elsewhere the module.
    """
    name = parameter.removeprefix("backbone.")
    if block := re.match(r"(.*?\.\d+)\.", name):
        return block[1]
    return re.sub(r"\.(weight|bias|lora_[ab]\..*)$", "", name)


def next_prime(number: int) -> int:
    """Return the smallest prime that is not below a number of at least 2."""
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
