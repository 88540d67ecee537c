"""The contenders of `train_step.py`: a network with A-Softmax here, and the same in PyTorch.

    python -m experiments.benchmarks.train_step_contenders jax_train spherenet20 32

prints the times and the peak memory of a few steps, and the time until the first one was done, as
JSON. Run by `train_step.py`, every contender in a process of its own. It runs on the GPU where
jax and torch see one.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tyro

from experiments.benchmarks import measure

Step = Callable[[], object]
CLASSES, WIDTH = 10_572, 512
DECAY, MOMENTUM, RATE, DIVISOR = 5e-4, 0.9, 1e-3, 128.0
Precision = Literal["float32", "bfloat16"]


def image_size(network: str) -> tuple[int, int]:
    """Height and width as the network's authors have them."""
    return (112, 112) if network == "mobilefacenet" else (112, 96)


def make_batch(network: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [B, H, W, 3] and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *image_size(network), 3), np.uint8)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def jax_train(network: str, batch: int, precision: Precision) -> Step:
    """The update that `sphereface train` runs."""
    import jax

    from sphereface_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
    from sphereface_jax.training.trainer import make_trainer

    trainer = make_trainer(
        TrainConfig(
            data=DataConfig(image_size=image_size(network)),
            model=ModelConfig(network, dtype=precision),
            optimizer=OptimizerConfig(learning_rate=RATE, weight_decay=DECAY, momentum=MOMENTUM),
            batch_size=batch,
        ),
        CLASSES,
    )
    images, labels = make_batch(network, batch)
    batch_on_device = jax.device_put({"image": images, "label": labels})
    state = trainer.init()

    def step() -> None:
        nonlocal state
        state, metrics = trainer.step(state, batch_on_device)
        jax.block_until_ready((state, metrics))

    return step


def jax_forward(network: str, batch: int, precision: Precision) -> Step:
    """Images to embeddings, as `sphereface embed` runs it."""
    import jax
    from flax import nnx

    from sphereface_jax.embedding import embed
    from sphereface_jax.training.config import ModelConfig
    from sphereface_jax.training.state import make_model

    config = ModelConfig(network, dtype=precision)
    model = nnx.jit(lambda: make_model(config, image_size(network), rngs=nnx.Rngs(0)))()
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    images = jax.device_put(make_batch(network, batch)[0])
    return lambda: embed(graph, params, rest, images, mirror=False).block_until_ready()


def torch_network(name: str) -> Any:
    """A network as PyTorch code has it, weights in channels-last."""
    import torch

    layers = torch_mobilefacenet() if name == "mobilefacenet" else torch_spherenet(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return layers.to(device=device, memory_format=torch.channels_last)


def torch_spherenet(name: str) -> Any:
    """SphereNet."""
    from torch import nn

    from sphereface_jax.models.residual import UNITS

    class Unit(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            layers: list[nn.Module] = []
            for _ in range(2):
                layers += [nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.PReLU(channels)]
            self.branch = nn.Sequential(*layers)
            for layer in (layers[0], layers[2]):
                nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]

        def forward(self, x: Any) -> Any:
            return x + self.branch(x)

    layers: list[nn.Module] = []
    inputs = 3
    plan = UNITS[int(name.removeprefix("spherenet"))]
    for channels, units in zip((64, 128, 256, 512), plan, strict=True):
        layers += [nn.Conv2d(inputs, channels, 3, 2, 1), nn.PReLU(channels)]
        layers += [Unit(channels) for _ in range(units)]
        inputs = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 7 * 6, WIDTH))


def torch_mobilefacenet() -> Any:
    """MobileFaceNet in InsightFace's doubled width."""
    from torch import nn

    class Residual(nn.Sequential):
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    def conv(inputs: int, outputs: int, kernel: int, linear: bool = False, **options: Any) -> Any:
        layers = [nn.Conv2d(inputs, outputs, kernel, bias=False, **options)]
        layers += [nn.BatchNorm2d(outputs)] + [nn.PReLU(outputs)] * (not linear)
        return nn.Sequential(*layers)

    def bottleneck(inputs: int, outputs: int, inner: int, stride: int) -> Any:
        return (nn.Sequential if stride > 1 else Residual)(
            conv(inputs, inner, 1),
            conv(inner, inner, 3, stride=stride, padding=1, groups=inner),
            conv(inner, outputs, 1, linear=True),
        )

    layers = [conv(3, 128, 3, stride=2, padding=1), conv(128, 128, 3, padding=1, groups=64)]
    stages = ((128, 128, 128, 128, 4), (128, 256, 256, 256, 6), (256, 256, 512, 256, 2))
    for inputs, outputs, first, inner, count in stages:
        layers += [bottleneck(inputs, outputs, first, 2)]
        layers += [bottleneck(outputs, outputs, inner, 1) for _ in range(count)]
    layers += [conv(256, 512, 1), conv(512, 512, 7, linear=True, groups=512), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(512, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))


def torch_images(network: str, batch: int, device: str) -> tuple[Any, Any]:
    """Images uint8 [B, 3, H, W] in channels-last, and labels."""
    import torch

    images, labels = make_batch(network, batch)
    images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    return images, torch.from_numpy(labels).long().to(device)


def a_softmax(x: Any, prototypes: Any, labels: Any, annealing_lambda: float = 5.0) -> Any:
    """A-Softmax with m = 4 as it is usually written in PyTorch."""
    import torch
    from torch.nn import functional

    norms = x.norm(2, 1)
    cosine = functional.linear(functional.normalize(x), functional.normalize(prototypes))
    cosine = cosine.clamp(-1, 1)
    multiple = 8 * cosine**4 - 8 * cosine**2 + 1
    k = (4 * cosine.detach().acos() / np.pi).floor()
    phi = (-1.0) ** k * multiple - 2 * k
    one_hot = torch.zeros_like(cosine).scatter_(1, labels.view(-1, 1), 1)
    logits = (one_hot * (phi - cosine) / (1 + annealing_lambda) + cosine) * norms.view(-1, 1)
    return functional.cross_entropy(logits, labels)


def torch_train(network: str, batch: int, precision: Precision, *, compiled: bool = False) -> Step:
    """The same network, loss and update in PyTorch."""
    import torch

    model = torch_network(network)
    device = next(model.parameters()).device.type
    prototypes = torch.nn.Parameter(torch.empty(CLASSES, WIDTH, device=device))
    torch.nn.init.xavier_uniform_(prototypes)
    weights = [*model.parameters(), prototypes]
    sgd = torch.optim.SGD(weights, RATE, MOMENTUM, weight_decay=DECAY, fused=device == "cuda")
    images, labels = torch_images(network, batch, device)

    def loss() -> Any:
        pixels = (images.float() - 127.5) / DIVISOR
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            x = model(pixels)
        return a_softmax(x.float(), prototypes, labels)

    loss = torch.compile(loss) if compiled else loss

    def step() -> None:
        sgd.zero_grad()
        loss().backward()
        sgd.step()
        torch.cuda.synchronize() if device == "cuda" else None

    return step


def torch_forward(
    network: str, batch: int, precision: Precision, *, compiled: bool = False
) -> Step:
    """Images to embeddings in PyTorch."""
    import torch

    model = torch_network(network).eval()
    device = next(model.parameters()).device.type
    images, _ = torch_images(network, batch, device)

    def embed() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return model((images.float() - 127.5) / DIVISOR)

    embed = torch.compile(embed) if compiled else embed

    def step() -> None:
        with torch.inference_mode():
            embed()
        torch.cuda.synchronize() if device == "cuda" else None

    return step


def matrix_product(network: str, batch: int, precision: Precision) -> Step:
    """A product of two matrices of 4096 rows and columns: the peak that a share is taken of."""
    import jax
    import jax.numpy as jnp

    del network, batch
    a = jax.random.normal(jax.random.key(0), (4096, 4096), jnp.dtype(precision))
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a).block_until_ready()


def torch_matrix_product(network: str, batch: int, precision: Precision) -> Step:
    """The same product in PyTorch."""
    import torch

    del network, batch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(4096, 4096, device=device, dtype=getattr(torch, precision))

    def step() -> None:
        torch.matmul(a, a)
        torch.cuda.synchronize() if device == "cuda" else None

    return step


def torch_compile_train(network: str, batch: int, precision: Precision) -> Step:
    """PyTorch's update through torch.compile."""
    return torch_train(network, batch, precision, compiled=True)


def torch_compile_forward(network: str, batch: int, precision: Precision) -> Step:
    """PyTorch's forward pass through torch.compile."""
    return torch_forward(network, batch, precision, compiled=True)


CONTENDERS: dict[str, Callable[[str, int, Precision], Step]] = {
    "jax_train": jax_train,
    "jax_forward": jax_forward,
    "torch_train": torch_train,
    "torch_forward": torch_forward,
    "torch_compile_train": torch_compile_train,
    "torch_compile_forward": torch_compile_forward,
    "matrix_product": matrix_product,
    "torch_matrix_product": torch_matrix_product,
}


def peak_bytes() -> int:
    """Most memory held so far: of the GPU where one was used, of the process otherwise."""
    if "jax" in sys.modules and (stats := sys.modules["jax"].devices()[0].memory_stats()):
        return stats["peak_bytes_in_use"]
    if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_available():
        return cuda.max_memory_allocated()
    return measure.peak_bytes()


def main(
    name: str, network: str, batch: int, /, precision: Precision = "float32", rounds: int = 5
) -> None:
    """Measures one contender.

    Args:
      name: which.
      network: of `MODELS`: a SphereNet or mobilefacenet.
      batch: B.
      precision: of the network's computation.
      rounds: steps that are timed.
    """
    step = CONTENDERS[name](network, batch, precision)
    first = measure.seconds(step)[1]
    step()
    times = [round(measure.seconds(step)[1], 5) for _ in range(rounds)]
    found = {
        "seconds": min(times),
        "all_seconds": times,
        "first_seconds": round(first, 2),
        "peak_gib": round(peak_bytes() / 2**30, 3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    tyro.cli(main)
