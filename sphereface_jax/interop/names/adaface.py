"""The names of AdaFace's IR networks, which CVLface goes on using."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import AsNormalization, Named
from sphereface_jax.models.iresnet import IResNet, Shortcut


def named_layers(model: IResNet) -> Iterator[Named]:
    """Yields layers by name."""
    yield "input_layer.0", model.conv
    yield "input_layer.1", model.norm1
    yield "input_layer.2", model.prelu
    for index, unit in enumerate(unit for stage in model.stages for unit in stage):
        name = f"body.{index}"
        yield f"{name}.res_layer.0", unit.norm1
        yield f"{name}.res_layer.1", unit.conv1
        yield f"{name}.res_layer.2", unit.norm2
        yield f"{name}.res_layer.3", unit.prelu
        yield f"{name}.res_layer.4", unit.conv2
        yield f"{name}.res_layer.5", unit.norm3
        if isinstance(unit.shortcut, Shortcut):
            yield f"{name}.shortcut_layer.0", unit.shortcut.conv
            yield f"{name}.shortcut_layer.1", unit.shortcut.norm
    yield "output_layer.0", model.norm2
    yield "output_layer.3", model.embedding
    yield "output_layer.4", AsNormalization(model.norm3, affine=False)
