"""What a family of names is: a function that walks a network and names its layers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flax import nnx

from sphereface_jax.models.layers import BatchNorm, Bias


@dataclass(frozen=True)
class AsConvolution:
    """A linear layer that the file has as a 1×1 convolution, [out, in, 1, 1]."""

    layer: nnx.Linear


@dataclass(frozen=True)
class AsNormalization:
    """A normalisation that the file's network has in another form.

    Attributes:
      layer: the normalisation here.
      affine: whether the file has a weight and a bias.
      trained_weight: whether the file's weight is used there, or is taken for 1 whatever it says.
      epsilon: of the file's network. The variance takes up its difference to the one here, so that
        embeddings are the same; the statistics of further training are for the one here.
    """

    layer: BatchNorm | Bias
    affine: bool = True
    trained_weight: bool = True
    epsilon: float = 1e-5


Named = tuple[str, nnx.Module | nnx.Variable | AsConvolution | AsNormalization | None]
"""A layer that holds weights, or a weight, by its name; None stands for a layer that this variant
lacks."""

Family = Callable[[Any], Iterator[Named]]
"""Yields every layer of a network by its name, in the order of the network."""
