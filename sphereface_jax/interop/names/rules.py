"""What a family of names is: a function that walks a network and names its layers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flax import nnx


@dataclass(frozen=True)
class AsConvolution:
    """A linear layer that the file has as a 1×1 convolution, [out, in, 1, 1]."""

    layer: nnx.Linear


Named = tuple[str, nnx.Module | nnx.Variable | AsConvolution | None]
"""A layer that holds weights, or a weight, by its name; None stands for a layer that this variant
lacks."""

Family = Callable[[Any], Iterator[Named]]
"""Yields every layer of a network by its name, in the order of the network."""
