"""The names of TreB1eN's MobileFaceNet, of InsightFace_Pytorch."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import Named
from sphereface_jax.models.mobilefacenet import Bottleneck, ConvNorm, MobileFaceNet

_NUMBERS = ("23", "34", "45")


def named_layers(model: MobileFaceNet) -> Iterator[Named]:
    """Yields layers by name."""
    yield from _conv_norm("conv1", model.stem)
    if model.grouped is not None:
        yield from _conv_norm("conv2_dw", model.grouped)
    for number, (first, *residual) in zip(_NUMBERS, model.stages, strict=True):
        yield from _bottleneck(f"conv_{number}", first)
        for index, bottleneck in enumerate(residual):
            yield from _bottleneck(f"conv_{number[1]}.model.{index}", bottleneck)
    yield from _conv_norm("conv_6_sep", model.separate)
    yield from _conv_norm("conv_6_dw", model.pool)
    yield "linear", model.embedding
    yield "bn", model.norm


def _bottleneck(name: str, bottleneck: Bottleneck) -> Iterator[Named]:
    yield from _conv_norm(f"{name}.conv", bottleneck.expand)
    yield from _conv_norm(f"{name}.conv_dw", bottleneck.depthwise)
    yield from _conv_norm(f"{name}.project", bottleneck.project)


def _conv_norm(name: str, block: ConvNorm) -> Iterator[Named]:
    yield f"{name}.conv", block.conv
    yield f"{name}.bn", block.norm
    yield f"{name}.prelu", block.prelu
