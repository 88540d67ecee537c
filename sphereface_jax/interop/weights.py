r"""A network's weights as PyTorch's state dict, and back, to the bit.

Layouts differ. A convolution's kernel is [height, width, in, out] here and [out, in, height, width]
there; a linear layer's [in, out] here and [out, in] there; and the linear layer after the last
convolution reads the image as (height, width, channel) here and as (channel, height, width) there.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphereface_jax.interop.names import families, named_layers
from sphereface_jax.interop.names.rules import AsConvolution, AsNormalization
from sphereface_jax.models.layers import BatchNorm, Bias, PReLU

Layout = Callable[[np.ndarray], np.ndarray]
BATCHES_TRACKED = "num_batches_tracked"
"""What PyTorch counts beside a normalisation's statistics and no network here needs."""


@dataclass(frozen=True)
class Slot:
    """One tensor of a network.

    Attributes:
      variable: where it is here.
      to_torch: from the layout here to PyTorch's.
      from_torch: back.
    """

    variable: nnx.Variable
    to_torch: Layout
    from_torch: Layout


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _kernel_slot(variable: nnx.Variable, feature_shape: tuple[int, int, int] | None) -> Slot:
    if len(variable.shape) == 4:
        return Slot(variable, lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0))
    if feature_shape is None:
        return Slot(variable, np.transpose, np.transpose)
    height, width, channels = feature_shape

    def to_torch(kernel: np.ndarray) -> np.ndarray:
        image = kernel.reshape(height, width, channels, -1)
        return image.transpose(3, 2, 0, 1).reshape(-1, channels * height * width)

    def from_torch(weight: np.ndarray) -> np.ndarray:
        image = weight.reshape(-1, channels, height, width)
        return image.transpose(2, 3, 1, 0).reshape(height * width * channels, -1)

    return Slot(variable, to_torch, from_torch)


def torch_slots(model: Any, family: str = "") -> dict[str, Slot]:
    """Every tensor of a network by its PyTorch name, weights and statistics.

    Args:
      model: the network.
      family: of the names, of `interop.names`; that of the network's original by default.

    Returns:
      The variable that each is, and how its values turn into the other framework's and back.
    """
    slots: dict[str, Slot] = {}
    for name, layer in named_layers(model, family):
        for leaf, slot in _layer_slots(layer, model.feature_shape):
            slots[f"{name}.{leaf}" if leaf else name] = slot
    return slots


def _layer_slots(
    layer: nnx.Module | nnx.Variable | AsConvolution | AsNormalization | None,
    feature_shape: tuple[int, int, int] | None,
) -> Iterator[tuple[str, Slot]]:
    if isinstance(layer, nnx.Variable):
        yield "", Slot(layer, _same, _same)
    elif isinstance(layer, AsNormalization):
        for leaf, slot in _layer_slots(layer.layer, feature_shape):
            if layer.affine or leaf not in ("weight", "bias"):
                yield leaf, _as_normalization(slot, leaf, layer)
    elif isinstance(layer, AsConvolution):
        for leaf, slot in _layer_slots(layer.layer, feature_shape):
            yield leaf, _as_convolution(slot) if leaf == "weight" else slot
    elif isinstance(layer, nnx.Conv | nnx.Linear):
        yield "weight", _kernel_slot(layer.kernel, feature_shape)
        if layer.bias is not None:
            yield "bias", Slot(layer.bias, _same, _same)
    else:
        for leaf, vector in _vectors(layer).items():
            if vector is not None:
                yield leaf, Slot(vector, _same, _same)


def _vectors(layer: nnx.Module | None) -> dict[str, nnx.Variable | None]:
    """What a layer holds for each channel, by PyTorch's names."""
    if isinstance(layer, PReLU):
        return {"weight": layer.slope}
    if isinstance(layer, Bias):
        return {"bias": layer.bias}
    if isinstance(layer, nnx.LayerNorm):
        return {"weight": layer.scale, "bias": layer.bias}
    if isinstance(layer, BatchNorm):
        return {
            "weight": layer.scale,
            "bias": layer.bias,
            "running_mean": layer.mean,
            "running_var": layer.var,
        }
    return {}


def _as_convolution(slot: Slot) -> Slot:
    return Slot(
        slot.variable,
        lambda x: slot.to_torch(x)[..., None, None],
        lambda x: slot.from_torch(x.reshape(x.shape[:2])),
    )


def _as_normalization(slot: Slot, leaf: str, norm: AsNormalization) -> Slot:
    if leaf == "weight" and not norm.trained_weight:
        return Slot(slot.variable, _same, np.ones_like)
    if leaf == "running_var":
        more = np.float32(norm.epsilon - norm.layer.epsilon)
        return Slot(slot.variable, lambda x: x - more, lambda x: x + more)
    return slot


def _bare(layer: Any) -> Any:
    """A normalisation out of what says how a file has it; anything else as it is."""
    return layer.layer if isinstance(layer, AsNormalization) else layer


def _identities(model: nnx.Module, family: str = "") -> dict[str, np.ndarray]:
    """The tensors of normalisations that a network with folded ones stands for, by name.

    They change nothing but by the bias, and are what the network's original has in their place.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, named in named_layers(model, family):
        layer = _bare(named)
        if isinstance(layer, Bias):
            affine = not isinstance(named, AsNormalization) or named.affine
            ones, zeros = np.ones(layer.channels, np.float32), np.zeros(layer.channels, np.float32)
            if affine:
                tensors[f"{name}.weight"] = ones
            tensors[f"{name}.running_mean"] = zeros
            tensors[f"{name}.running_var"] = ones * np.float32(1 - layer.epsilon)
            if layer.bias is None and affine:
                tensors[f"{name}.bias"] = zeros
    return tensors


def normalizations(model: nnx.Module, family: str = "") -> list[str]:
    """The PyTorch names of the layers that count batches.

    Args:
      model: the network.
      family: of the names, of `interop.names`; that of the network's original by default.

    Returns:
      Names, in the order of the network.
    """
    return [
        name
        for name, layer in named_layers(model, family)
        if isinstance(_bare(layer), BatchNorm | Bias)
    ]


def state_dict(model: nnx.Module, *, batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """A network as the state dict of its PyTorch counterpart, which may load it strictly.

    Args:
      model: the network.
      batches_tracked: what to say where PyTorch counts the batches it saw.

    Returns:
      Tensors by name.
    """
    tensors = {
        name: np.ascontiguousarray(slot.to_torch(np.asarray(slot.variable[...])))
        for name, slot in torch_slots(model).items()
    }
    tensors |= _identities(model)
    for name in normalizations(model):
        tensors[f"{name}.{BATCHES_TRACKED}"] = np.array(batches_tracked, np.int64)
    return tensors


def family_of(model: nnx.Module, tensors: Collection[str]) -> str:
    """The family of names, of `interop.names`, that most of a file's tensors have.

    Args:
      model: the network, possibly an abstract one.
      tensors: their names.

    Returns:
      The family.
    """
    names = set(tensors)
    return max(families(model), key=lambda family: len(torch_slots(model, family).keys() & names))


def load_state_dict(model: nnx.Module, tensors: Mapping[str, np.ndarray]) -> str:
    """Gives a network, possibly an abstract one, the weights of its PyTorch counterpart.

    Args:
      model: changed in place.
      tensors: by name, of any floating-point dtype.

    Returns:
      The family of names that most of the tensors have, of `interop.names`.

    Raises:
      ValueError: a tensor is missing, left over, of another shape, or holds no real numbers, or a
        variance is negative; all such are counted and the first of them named. The network is then
        unchanged.
    """
    family = family_of(model, tensors)
    slots = torch_slots(model, family)
    ignored = {f"{name}.{BATCHES_TRACKED}" for name in normalizations(model, family)}
    identities = _identities(model, family)
    problems = {
        "missing": [name for name in (*slots, *identities) if name not in tensors],
        "left over": [
            name for name in tensors if name not in slots.keys() | identities.keys() | ignored
        ],
        "of a normalisation that is not folded": [
            name
            for name, tensor in identities.items()
            if name in tensors and not np.array_equal(tensors[name], tensor)
        ],
        "of another shape": [
            f"{name} {tensors[name].shape} for {expected}"
            for name, slot in slots.items()
            if name in tensors and tensors[name].shape != (expected := _torch_shape(slot))
        ],
        "without real numbers": [
            f"{name} ({tensors[name].dtype})"
            for name in slots
            if name in tensors and not jnp.issubdtype(tensors[name].dtype, jnp.floating)
        ],
        "not finite": [
            name
            for name in slots
            if name in tensors and not np.all(np.isfinite(tensors[name].astype(np.float32)))
        ],
        "negative": [
            name
            for name in slots
            if name.endswith(".running_var") and np.any(tensors.get(name, np.zeros(1)) < 0)
        ],
    }
    said = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for problem, names in problems.items()
        if names
    ]
    if said:
        raise ValueError(f"expected the {len(slots)} tensors of the network, got {'; '.join(said)}")
    for name, slot in slots.items():
        slot.variable.set_value(jnp.asarray(slot.from_torch(tensors[name].astype(np.float32))))
    for _, named in named_layers(model, family):
        if isinstance(named, AsNormalization) and not named.affine:
            _neither_scale_nor_shift(named.layer)
    return family


def _neither_scale_nor_shift(norm: BatchNorm | Bias) -> None:
    """Gives a normalisation what a file without a weight and a bias means by that."""
    if isinstance(norm, BatchNorm):
        assert norm.scale is not None
        assert norm.bias is not None
        norm.scale.set_value(jnp.ones(norm.scale.shape, jnp.float32))
        norm.bias.set_value(jnp.zeros(norm.bias.shape, jnp.float32))


def _torch_shape(slot: Slot) -> tuple[int, ...]:
    """The shape of a slot over there, found without memory: a broadcast zero has any shape."""
    return slot.to_torch(np.broadcast_to(np.float32(0), slot.variable.shape)).shape
