"""The names of foamliu's MobileFaceNet."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import AsConvolution, Named
from sphereface_jax.models.mobilefacenet import MobileFaceNet


def named_layers(model: MobileFaceNet) -> Iterator[Named]:
    """Yields layers by name."""
    yield "conv1.0", model.stem.conv
    yield "conv1.1", model.stem.norm
    for number, name, block in ((1, "depthwise", model.grouped), (2, "pointwise", model.pointwise)):
        assert block is not None
        yield f"dw_conv.{name}", block.conv
        yield f"dw_conv.bn{number}", block.norm
    bottlenecks = [bottleneck for stage in model.stages for bottleneck in stage]
    for index, bottleneck in enumerate(bottlenecks):
        name = f"features.{index}.conv"
        yield f"{name}.0.0", bottleneck.expand.conv
        yield f"{name}.0.1", bottleneck.expand.norm
        yield f"{name}.1.0", bottleneck.depthwise.conv
        yield f"{name}.1.1", bottleneck.depthwise.norm
        yield f"{name}.2", bottleneck.project.conv
        yield f"{name}.3", bottleneck.project.norm
    yield "conv2.0", model.separate.conv
    yield "conv2.1", model.separate.norm
    yield "gdconv.depthwise", model.pool.conv
    yield "gdconv.bn", model.pool.norm
    yield "conv3", AsConvolution(model.embedding)
    yield "bn", model.norm
