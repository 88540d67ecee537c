"""The names of Xiaoccer's MobileFaceNet."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import AsConvolution, Named
from sphereface_jax.models.mobilefacenet import ConvNorm, MobileFaceNet


def named_layers(model: MobileFaceNet) -> Iterator[Named]:
    """Yields layers by name."""
    yield from _conv_norm("conv1", model.stem)
    if model.grouped is not None:
        yield from _conv_norm("dw_conv1", model.grouped)
    bottlenecks = (bottleneck for stage in model.stages for bottleneck in stage)
    for index, bottleneck in enumerate(bottlenecks):
        name = f"blocks.{index}.conv"
        yield f"{name}.0", bottleneck.expand.conv
        yield f"{name}.1", bottleneck.expand.norm
        yield f"{name}.2", bottleneck.expand.prelu
        yield f"{name}.3", bottleneck.depthwise.conv
        yield f"{name}.4", bottleneck.depthwise.norm
        yield f"{name}.5", bottleneck.depthwise.prelu
        yield f"{name}.6", bottleneck.project.conv
        yield f"{name}.7", bottleneck.project.norm
    yield from _conv_norm("conv2", model.separate)
    yield from _conv_norm("linear7", model.pool)
    yield "linear1.conv", AsConvolution(model.embedding)
    yield "linear1.bn", model.norm


def _conv_norm(name: str, block: ConvNorm) -> Iterator[Named]:
    yield f"{name}.conv", block.conv
    yield f"{name}.bn", block.norm
    yield f"{name}.prelu", block.prelu
