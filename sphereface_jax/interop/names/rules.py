"""What a family of names is: a function that walks a network and names its layers."""

from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

Named = tuple[str, nnx.Module | None]
"""A layer that holds weights, by its name; None stands for one that this variant lacks."""

Family = Callable[[Any], Iterator[Named]]
"""Yields every layer of a network by its name, in the order of the network."""
