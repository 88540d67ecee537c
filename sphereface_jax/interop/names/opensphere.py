"""The names of OpenSphere's SFNet, with and without normalisation, and of its older variant."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import Named
from sphereface_jax.models.sfnet import SFNet


def named_layers(model: SFNet) -> Iterator[Named]:
    """Yields layers by name."""
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
