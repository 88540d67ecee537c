"""SphereFace as one would write it in PyTorch: network, A-Softmax, loop. Nothing of JAX.

The loss is the usual reference: cos 4θ as a polynomial, the angle and its segment detached, a
one-hot mask. The update is the Caffe solver's that the authors used: the velocity holds the rate,
biases learn at twice the rate and do not decay.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


class SphereNet4(nn.Module):
    """Four convolutions of stride 2 with PReLU, and a linear layer; names as in sphere20a."""

    def __init__(self, channels: Sequence[int], embedding_dim: int, image_size: tuple[int, int]):
        super().__init__()
        height, width = image_size
        for number, (before, after) in enumerate(zip([3, *channels], channels, strict=False), 1):
            self.add_module(f"conv{number}_1", nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.add_module(f"relu{number}_1", nn.PReLU(after))
            height, width = (height + 1) // 2, (width + 1) // 2
        self.fc5 = nn.Linear(channels[-1] * height * width, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] of images [B, 3, H, W]."""
        for layer in [*self.children()][:-1]:
            x = layer(x)
        return self.fc5(x.flatten(1))


class SFNet4(nn.Module):
    """SphereNet4 with batch normalisation and ReLU; names as in OpenSphere."""

    def __init__(self, channels: Sequence[int], embedding_dim: int, image_size: tuple[int, int]):
        super().__init__()
        height, width = image_size
        for number, (before, after) in enumerate(zip([3, *channels], channels, strict=False), 1):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            layers = {"conv1": conv, "bn1": nn.BatchNorm2d(after), "relu": nn.ReLU()}
            layer = nn.Sequential(nn.Sequential(OrderedDict(layers)))
            self.add_module(f"layer{number}", layer)
            height, width = (height + 1) // 2, (width + 1) // 2
        self.fc = nn.Linear(channels[-1] * height * width, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] of images [B, 3, H, W]."""
        for layer in [*self.children()][:-2]:
            x = layer(x)
        return self.features(self.fc(x.flatten(1)))


NETWORKS = {"spherenet4": SphereNet4, "sfnet4_bn": SFNet4}


def angular_softmax(x: Tensor, weight: Tensor, labels: Tensor, annealing_lambda: float) -> Tensor:
    """The mean A-Softmax loss with m = 4."""
    cosine = functional.linear(functional.normalize(x), functional.normalize(weight)).clamp(-1, 1)
    segment = (4 * cosine.detach().acos() / math.pi).floor()
    psi = (-1.0) ** segment * (8 * cosine**4 - 8 * cosine**2 + 1) - 2 * segment
    one_hot = functional.one_hot(labels, len(weight))
    logits = (one_hot * (psi - cosine) / (1 + annealing_lambda) + cosine) * x.norm(dim=1)[:, None]
    return functional.cross_entropy(logits, labels)


def train(
    network: nn.Module,
    weight: Tensor,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    rates: Sequence[float],
    lambdas: Sequence[float],
    clip_norm: float,
) -> list[float]:
    """Trains a network and its class weights in place and returns the loss of every step.

    Args:
      network: takes [B, 3, H, W].
      weight: [C, D], a leaf that wants its gradient.
      batches: images uint8 [B, H, W, 3] and labels [B].
      rates: the learning rate of each step.
      lambdas: λ of each step.
      clip_norm: of the gradient over everything.
    """
    named = [*network.named_parameters(), ("weight", weight)]
    velocities = [torch.zeros_like(parameter) for _, parameter in named]
    losses = []
    for (images, labels), rate, annealing_lambda in zip(batches, rates, lambdas, strict=True):
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 128
        target = torch.from_numpy(labels).long()
        loss = angular_softmax(network(pixels), weight, target, annealing_lambda)
        gradients = torch.autograd.grad(loss, [parameter for _, parameter in named])
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        with torch.no_grad():
            for (name, parameter), gradient, velocity in zip(
                named, gradients, velocities, strict=True
            ):
                step = gradient * min(1.0, clip_norm / float(norm))
                is_bias = name.endswith("bias")
                if not is_bias:
                    step = step + WEIGHT_DECAY * parameter
                velocity.mul_(MOMENTUM).add_(step, alpha=2 * rate if is_bias else rate)
                parameter.sub_(velocity)
        losses.append(loss.item())
    return losses


def state_of(network: nn.Module) -> dict[str, Any]:
    """The network's weights as arrays."""
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
