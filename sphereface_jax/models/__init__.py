"""Backbones: networks from images [B, H, W, 3] to embeddings [B, embedding_dim].

Trained weights (batch statistics are not) and multiply-accumulates an image, at the size of the
source: 112×96 for the first six, 112×112 for the others.

    name                 weights      MACs    source
    spherenet4           12,562,496   0.16 G  Liu et al., CVPR 2017; Caffe prototxt
    spherenet10          15,217,984   0.76 G
    spherenet20          22,666,944   1.75 G
    spherenet36          32,771,392   3.34 G
    spherenet64          48,186,816   6.11 G
    sphere20a            22,670,656   1.75 G  clcarwin/sphereface_pytorch
    sfnet4               14,396,544   0.19 G  ydwen/opensphere, sfnet.py
    sfnet10              17,052,032   0.89 G
    sfnet20              24,500,992   2.04 G
    sfnet36              34,605,440   3.89 G
    sfnet64              50,020,864   7.13 G
    sfnet4_bn            14,398,528   0.19 G  the same with batch normalisation
    sfnet10_bn           17,055,296   0.89 G
    sfnet20_bn           24,506,688   2.04 G
    sfnet36_bn           34,614,848   3.89 G
    sfnet64_bn           50,036,544   7.13 G
    sfnet4_deprecated    14,396,544   0.19 G  the same, sfnet_deprecated.py
    sfnet10_deprecated   17,052,032   0.89 G
    sfnet20_deprecated   24,500,992   2.04 G
    sfnet36_deprecated   34,605,440   3.89 G
    sfnet64_deprecated   50,020,864   7.13 G
    iresnet18            24,025,088   2.61 G  deepinsight/insightface, arcface_torch
    iresnet34            34,138,816   4.46 G
    iresnet50            43,590,336   6.31 G
    iresnet100           65,155,648  12.09 G
    iresnet200          118,833,408  23.42 G
    ir18                 24,020,352   2.60 G  mk-minchul/AdaFace, CVLface
    ir34                 34,134,080   4.45 G
    ir50                 43,585,600   6.30 G
    ir101                65,150,912  12.08 G
    mobilefacenet         2,059,520   0.44 G
    mobilefacenet_classic 1,200,512   0.22 G  the paper's width
    mobilefacenet_large   6,314,880   1.82 G
    mobilefacenet_foamliu 1,197,696   0.23 G  foamliu/MobileFaceNet
    vit_t                19,137,536   1.50 G  deepinsight/insightface, arcface_torch
    vit_s                76,022,784   5.75 G
    vit_b               113,832,960  11.44 G

`model.train()` and `model.eval()` of NNX say whether batch normalisation takes the statistics of
the batch, as a new network does, or those that it has gathered.
"""

import functools
from typing import Any

from flax import nnx

from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.models.iresnet import UNITS as IRESNET_UNITS
from sphereface_jax.models.iresnet import IResNet
from sphereface_jax.models.mobilefacenet import MobileFaceNet
from sphereface_jax.models.residual import UNITS
from sphereface_jax.models.sfnet import SFNet
from sphereface_jax.models.spherenet import SphereNet
from sphereface_jax.models.vit import VisionTransformer

MODELS: dict[str, functools.partial[Any]] = {
    **{f"spherenet{depth}": functools.partial(SphereNet, depth) for depth in UNITS},
    "sphere20a": functools.partial(SphereNet, 20, residual_bias=True),
    **{f"sfnet{depth}": functools.partial(SFNet, depth) for depth in UNITS},
    **{f"sfnet{depth}_bn": functools.partial(SFNet, depth, batch_norm=True) for depth in UNITS},
    **{
        f"sfnet{depth}_deprecated": functools.partial(SFNet, depth, deprecated=True)
        for depth in UNITS
    },
    **{f"iresnet{depth}": functools.partial(IResNet, depth) for depth in IRESNET_UNITS},
    **{
        f"ir{101 if depth == 100 else depth}": functools.partial(IResNet, depth, ir=True)
        for depth in (18, 34, 50, 100)
    },
    "mobilefacenet": functools.partial(MobileFaceNet),
    "mobilefacenet_classic": functools.partial(MobileFaceNet, scale=1),
    "mobilefacenet_large": functools.partial(MobileFaceNet, scale=4, residual=(2, 8, 12, 4)),
    "mobilefacenet_foamliu": functools.partial(
        MobileFaceNet, scale=1, activation="relu6", separable=True, embedding_bias=True
    ),
    "vit_t": functools.partial(VisionTransformer, 12, width=0.5),
    "vit_s": functools.partial(VisionTransformer, 12),
    "vit_b": functools.partial(VisionTransformer, 24),
}
"""Every backbone by the name that `--model.name` takes."""

FOLDABLE = (SFNet, IResNet, MobileFaceNet, VisionTransformer)
"""The networks that take `folded`: biases in place of normalisations after a layer."""


def abstract_model(name: str, **options: Any) -> Any:
    """A backbone with shapes in place of arrays: nothing is computed.

    It is traced once in a process: to build a hundred layers takes Python half a second, and who
    opens a run asks more than once.

    Args:
      name: one of `MODELS`.
      **options: that its builder takes, besides `rngs`.

    Returns:
      The network, a new one each time.

    Raises:
      ValueError: as the builder.

    Example:
      >>> model = abstract_model("spherenet4", image_size=(32, 32), channels=(4, 4, 8, 8))
      >>> model.embedding.kernel.shape
      (32, 512)
    """
    graph, variables = _trace(name, tuple(options.items()))
    return nnx.merge(graph, variables, copy=True)


@functools.lru_cache(maxsize=32)
@run_arithmetic()
def _trace(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[Any, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: MODELS[name](**dict(options), rngs=nnx.Rngs(0))))
