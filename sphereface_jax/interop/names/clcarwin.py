"""The names of clcarwin's sphere20a, whose order of numbers goes on to other depths."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import Named
from sphereface_jax.models.spherenet import SphereNet


def named_layers(model: SphereNet) -> Iterator[Named]:
    """Yields layers by name."""
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
