"""The names of InsightFace's arcface_torch: its IResNet, MobileFaceNet and ViT."""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import Named
from sphereface_jax.models.iresnet import IResNet, IResUnit, Shortcut
from sphereface_jax.models.mobilefacenet import Bottleneck, ConvNorm, MobileFaceNet
from sphereface_jax.models.vit import VisionTransformer


def iresnet_layers(model: IResNet) -> Iterator[Named]:
    """Yields layers by name."""
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
    if isinstance(unit.shortcut, Shortcut):
        yield "downsample.0", unit.shortcut.conv
        yield "downsample.1", unit.shortcut.norm


def mobilefacenet_layers(model: MobileFaceNet) -> Iterator[Named]:
    """Yields layers by name."""
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


def vit_layers(model: VisionTransformer) -> Iterator[Named]:
    """Yields layers and single weights by name."""
    yield "pos_embed", model.positions
    yield "mask_token", model.mask_token
    yield "patch_embed.proj", model.patches
    for index, block in enumerate(model.blocks):
        yield f"blocks.{index}.norm1", block.norm1
        yield f"blocks.{index}.attn.qkv", block.attention.qkv
        yield f"blocks.{index}.attn.proj", block.attention.project
        yield f"blocks.{index}.norm2", block.norm2
        yield f"blocks.{index}.mlp.fc1", block.expand
        yield f"blocks.{index}.mlp.fc2", block.project
    yield "norm", model.norm
    yield "feature.0", model.reduce
    yield "feature.1", model.reduce_norm
    yield "feature.2", model.embedding
    yield "feature.3", model.embedding_norm
