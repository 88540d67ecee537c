"""What each layer of a backbone is called in the PyTorch network that its weights come from."""

import functools
from collections.abc import Iterator

from flax import nnx

from sphereface_jax.models.iresnet import IResNet, IResUnit
from sphereface_jax.models.mobilefacenet import Bottleneck, ConvNorm, MobileFaceNet
from sphereface_jax.models.sfnet import SFNet
from sphereface_jax.models.spherenet import SphereNet

Named = tuple[str, nnx.Module | None]


@functools.singledispatch
def named_layers(model: nnx.Module) -> Iterator[Named]:
    """Yields the layers that hold weights by their PyTorch names, in the order of the network.

    A name whose layer is None stands for a layer that this variant of the network lacks.
    """
    raise TypeError(f"no PyTorch network is known for {type(model).__name__}")


@named_layers.register
def _(model: SphereNet) -> Iterator[Named]:
    """Names of clcarwin's sphere20a, whose order of numbers goes on to other depths."""
    for number, stage in enumerate(model.stages, start=1):
        yield f"conv{number}_1", stage.conv
        yield f"relu{number}_1", stage.prelu
        for index, unit in enumerate(stage.units):
            first, second = 2 * index + 2, 2 * index + 3
            yield f"conv{number}_{first}", unit.conv1
            yield f"relu{number}_{first}", unit.prelu1
            yield f"conv{number}_{second}", unit.conv2
            yield f"relu{number}_{second}", unit.prelu2
    yield "fc5", model.embedding


@named_layers.register
def _(model: SFNet) -> Iterator[Named]:
    for number, stage in enumerate(model.stages, start=1):
        layer = f"layer{number}"
        yield f"{layer}.0.{'conv' if model.deprecated else 'conv1'}", stage.conv
        yield f"{layer}.0.bn1", stage.norm
        for index, unit in enumerate(stage.units, start=1):
            yield f"{layer}.{index}.conv1", unit.conv1
            yield f"{layer}.{index}.bn1", unit.norm1
            yield f"{layer}.{index}.conv2", unit.conv2
            yield f"{layer}.{index}.bn2", unit.norm2
    yield "fc", model.embedding
    yield "features", model.norm


@named_layers.register
def _(model: IResNet) -> Iterator[Named]:
    yield "conv1", model.conv
    yield "bn1", model.norm1
    yield "prelu", model.prelu
    for number, stage in enumerate(model.stages, start=1):
        for index, unit in enumerate(stage):
            for name, layer in _ires_unit(unit):
                yield f"layer{number}.{index}.{name}", layer
    yield "bn2", model.norm2
    yield "fc", model.embedding
    yield "features", model.norm3


def _ires_unit(unit: IResUnit) -> Iterator[Named]:
    yield "bn1", unit.norm1
    yield "conv1", unit.conv1
    yield "bn2", unit.norm2
    yield "prelu", unit.prelu
    yield "conv2", unit.conv2
    yield "bn3", unit.norm3
    if unit.shortcut is not None:
        yield "downsample.0", unit.shortcut.conv
        yield "downsample.1", unit.shortcut.norm


@named_layers.register
def _(model: MobileFaceNet) -> Iterator[Named]:
    yield from _conv_norm("layers.0", model.stem)
    if model.grouped is not None:
        yield from _conv_norm("layers.1", model.grouped)
    for index, bottleneck in enumerate(model.first):
        yield from _bottleneck(f"layers.1.layers.{index}", bottleneck)
    for number, (first, *residual) in enumerate(model.stages):
        yield from _bottleneck(f"layers.{2 * number + 2}", first)
        for index, bottleneck in enumerate(residual):
            yield from _bottleneck(f"layers.{2 * number + 3}.layers.{index}", bottleneck)
    yield from _conv_norm("conv_sep", model.separate)
    yield from _conv_norm("features.layers.0", model.pool)
    yield "features.layers.2", model.embedding
    yield "features.layers.3", model.norm


def _bottleneck(name: str, bottleneck: Bottleneck) -> Iterator[Named]:
    yield from _conv_norm(f"{name}.layers.0", bottleneck.expand)
    yield from _conv_norm(f"{name}.layers.1", bottleneck.depthwise)
    yield from _conv_norm(f"{name}.layers.2", bottleneck.project)


def _conv_norm(name: str, block: ConvNorm) -> Iterator[Named]:
    yield f"{name}.layers.0", block.conv
    yield f"{name}.layers.1", block.norm
    yield f"{name}.layers.2", block.prelu
