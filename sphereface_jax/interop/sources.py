"""Where each backbone's public weights come from, and the preprocessing that goes with them."""

from dataclasses import dataclass
from typing import Literal

from sphereface_jax.data.transforms import PerChannel


@dataclass(frozen=True)
class Source:
    """A family of public weights.

    Attributes:
      repository: where the networks are defined.
      color_order: of the pixels that they were trained on.
      image_size: height and width.
      pixel_divisor: pixels became (x − mean) / divisor.
      class_weights: the tensor of a backbone's file that holds the class weights, as [D, C].
      pixel_mean: the mean.
      embedding_dim: the length of an embedding.
    """

    repository: str
    color_order: Literal["bgr", "rgb"]
    image_size: tuple[int, int]
    pixel_divisor: PerChannel
    class_weights: str | None = None
    pixel_mean: PerChannel = 127.5
    embedding_dim: int = 512


def _of_pixels(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    """In pixels from 0 to 255, of numbers for pixels from 0 to 1."""
    red, green, blue = (round(255 * share, 9) for share in shares)
    return red, green, blue


_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SOURCES = {
    "mobilefacenet_foamliu": Source(
        "foamliu/MobileFaceNet",
        "rgb",
        (112, 112),
        pixel_mean=_of_pixels(_IMAGENET_MEAN),
        pixel_divisor=_of_pixels(_IMAGENET_DEVIATION),
        embedding_dim=128,
    ),
    "spherenet": Source("wy1iu/sphereface", "bgr", (112, 96), 128.0),
    "sphere20a": Source("clcarwin/sphereface_pytorch", "bgr", (112, 96), 128.0, "fc6.weight"),
    "sfnet": Source("ydwen/opensphere", "rgb", (112, 112), 127.5),
    "iresnet": Source("deepinsight/insightface, arcface_torch", "rgb", (112, 112), 127.5),
    "ir": Source("mk-minchul/AdaFace", "bgr", (112, 112), 127.5),
    "vit": Source("deepinsight/insightface, arcface_torch", "rgb", (112, 112), 127.5),
    "mobilefacenet": Source("deepinsight/insightface, arcface_torch", "rgb", (112, 112), 127.5),
}
"""Every source by the start of the names of its networks, the longer starts first."""

OF_FAMILIES = {
    "insightface_mxnet": Source("deepinsight/insightface, MXNet", "rgb", (112, 112), 128.0),
    "treb1en": Source("TreB1eN/InsightFace_Pytorch", "bgr", (112, 112), 127.5),
    "xiaoccer": Source(
        "Xiaoccer/MobileFaceNet_Pytorch", "rgb", (112, 96), 128.0, embedding_dim=128
    ),
}
"""By the family of a file's names, where that is not the family of the network's original."""


def source_of(arch: str, family: str = "") -> Source:
    """Where a network of `MODELS`, or weights with a family of names, come from.

    Args:
      arch: of `MODELS`.
      family: of the tensors' names, of `interop.names`; "" where it is not known.

    Returns:
      The source; that of the family goes first.
    """
    if family in OF_FAMILIES:
        return OF_FAMILIES[family]
    return next(source for start, source in SOURCES.items() if arch.startswith(start))
