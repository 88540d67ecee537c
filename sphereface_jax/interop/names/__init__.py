"""What each layer of a backbone is called in the files that its weights come in.

A family of names is a function in a module of its own; `FAMILIES` says which networks it names. The
first that fits a network is that of its original, under which its weights go out again; a file may
have the names of any.
"""

from collections.abc import Iterator

from flax import nnx

from sphereface_jax.interop.names import (
    adaface,
    arcface_torch,
    clcarwin,
    foamliu,
    insightface_mxnet,
    opensphere,
    treb1en,
    xiaoccer,
)
from sphereface_jax.interop.names.rules import Family, Named
from sphereface_jax.models.iresnet import IResNet
from sphereface_jax.models.mobilefacenet import MobileFaceNet
from sphereface_jax.models.sfnet import SFNet
from sphereface_jax.models.spherenet import SphereNet
from sphereface_jax.models.vit import VisionTransformer

FAMILIES: dict[type[nnx.Module], dict[str, Family]] = {
    SphereNet: {"clcarwin": clcarwin.named_layers},
    SFNet: {"opensphere": opensphere.named_layers},
    IResNet: {
        "arcface_torch": arcface_torch.iresnet_layers,
        "insightface_mxnet": insightface_mxnet.named_layers,
    },
    MobileFaceNet: {
        "arcface_torch": arcface_torch.mobilefacenet_layers,
        "treb1en": treb1en.named_layers,
        "xiaoccer": xiaoccer.named_layers,
    },
    VisionTransformer: {"arcface_torch": arcface_torch.vit_layers},
}
"""By the class of a network, the families that name its layers."""


def families(model: nnx.Module) -> dict[str, Family]:
    """Returns the families that name a network's layers, that of its original first.

    Raises:
      TypeError: there is none.
    """
    if isinstance(model, MobileFaceNet) and model.pointwise is not None:
        return {"foamliu": foamliu.named_layers}
    if isinstance(model, IResNet) and model.ir:
        return {"adaface": adaface.named_layers}
    if type(model) not in FAMILIES:
        raise TypeError(f"no PyTorch network is known for {type(model).__name__}")
    return FAMILIES[type(model)]


def named_layers(model: nnx.Module, family: str = "") -> Iterator[Named]:
    """The layers that hold weights by their names, in the order of the network.

    Args:
      model: the network.
      family: of the names; that of the network's original by default.

    Yields:
      A name and its layer.

    Raises:
      TypeError: no family names this network.
    """
    known = families(model)
    return known[family or next(iter(known))](model)
