"""The names of InsightFace's MXNet networks: LResNet-E-IR, fresnet.py with unit 3 and output E.

They are those of `interop.mxnet_file`, which says weight for gamma and the like.
"""

from collections.abc import Iterator

from sphereface_jax.interop.names.rules import AsNormalization, Named
from sphereface_jax.models.iresnet import IResNet, Shortcut
from sphereface_jax.models.layers import BatchNorm, Bias

EPSILON = 2e-5


def named_layers(model: IResNet) -> Iterator[Named]:
    """Yields layers by name."""
    yield "conv0", model.conv
    yield "bn0", _norm(model.norm1)
    yield "relu0", model.prelu
    for number, stage in enumerate(model.stages, start=1):
        for index, unit in enumerate(stage, start=1):
            name = f"stage{number}_unit{index}"
            yield f"{name}_bn1", _norm(unit.norm1)
            yield f"{name}_conv1", unit.conv1
            yield f"{name}_bn2", _norm(unit.norm2)
            yield f"{name}_relu1", unit.prelu
            yield f"{name}_conv2", unit.conv2
            yield f"{name}_bn3", _norm(unit.norm3)
            if isinstance(unit.shortcut, Shortcut):
                yield f"{name}_conv1sc", unit.shortcut.conv
                yield f"{name}_sc", _norm(unit.shortcut.norm)
    yield "bn1", _norm(model.norm2)
    yield "pre_fc1", model.embedding
    # MXNet's fix_gamma: whatever gamma says.
    yield "fc1", AsNormalization(model.norm3, epsilon=EPSILON, trained_weight=False)


def _norm(layer: BatchNorm | Bias) -> AsNormalization:
    return AsNormalization(layer, epsilon=EPSILON)
