"""Where each backbone's public weights come from, and the preprocessing that goes with them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Source:
    """A family of public weights.

    Attributes:
      repository: where the networks are defined.
      color_order: of the pixels that they were trained on.
      image_size: height and width.
      pixel_divisor: pixels became (x − 127.5) / divisor.
      class_weights: the tensor of a backbone's file that holds the class weights, as [D, C].
    """

    repository: str
    color_order: Literal["bgr", "rgb"]
    image_size: tuple[int, int]
    pixel_divisor: float
    class_weights: str | None = None


SOURCES = {
    "spherenet": Source("wy1iu/sphereface", "bgr", (112, 96), 128.0),
    "sphere20a": Source("clcarwin/sphereface_pytorch", "bgr", (112, 96), 128.0, "fc6.weight"),
    "sfnet": Source("ydwen/opensphere", "rgb", (112, 112), 127.5),
    "iresnet": Source("deepinsight/insightface, arcface_torch", "rgb", (112, 112), 127.5),
    "mobilefacenet": Source("deepinsight/insightface, arcface_torch", "rgb", (112, 112), 127.5),
}
"""Every source by the start of the names of its networks."""


def source_of(arch: str) -> Source:
    """Returns the source of a network of `MODELS`."""
    return next(source for start, source in SOURCES.items() if arch.startswith(start))
