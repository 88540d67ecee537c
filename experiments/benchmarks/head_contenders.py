"""The contenders of `head.py`: each makes one step, forward and both gradients, of A-Softmax.

    python -m experiments.benchmarks.head_contenders streaming 100000 128 512 --class-block 4096

prints the times, the processor times and the peak memory of a few steps as JSON. Run by `head.py`,
every contender in a process of its own.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro

from experiments.benchmarks.measure import held_bytes, peak_bytes, seconds

Step = Callable[[], object]
MARGIN, ANNEALING_LAMBDA = 4, 5.0


def make_arrays(classes: int, batch: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, prototypes and labels."""
    rng = np.random.default_rng(0)
    limit = (6 / (classes + width)) ** 0.5
    embeddings = rng.standard_normal((batch, width), dtype=np.float32)
    prototypes = rng.random((classes, width), dtype=np.float32)
    prototypes -= 0.5
    prototypes *= 2 * limit
    return embeddings, prototypes, rng.integers(0, classes, batch).astype(np.int32)


def ours(classes: int, batch: int, width: int, class_block: int | None) -> Step:
    """sphereface_loss, dense or streaming."""
    import jax
    import jax.numpy as jnp

    from sphereface_jax import sphereface_loss

    x, prototypes, labels = map(jnp.asarray, make_arrays(classes, batch, width))

    @jax.jit
    def step(x: jax.Array, prototypes: jax.Array) -> Any:
        def mean(x: jax.Array, prototypes: jax.Array) -> jax.Array:
            return sphereface_loss(
                x,
                prototypes,
                labels,
                margin=MARGIN,
                annealing_lambda=ANNEALING_LAMBDA,
                class_block=class_block,
            ).mean()

        return jax.value_and_grad(mean, (0, 1))(x, prototypes)

    return lambda: jax.block_until_ready(step(x, prototypes))


def bare_products(classes: int, batch: int, width: int, class_block: int | None) -> Step:
    """The four matrix products that a streaming head cannot do without, and nothing else."""
    import jax
    import jax.numpy as jnp

    del class_block
    x, prototypes, _ = map(jnp.asarray, make_arrays(classes, batch, width))
    slopes = jnp.ones((batch, classes))

    @jax.jit
    def logits(x: jax.Array, prototypes: jax.Array) -> jax.Array:
        return x @ prototypes.T

    @jax.jit
    def gradients(x: jax.Array, prototypes: jax.Array, slopes: jax.Array) -> Any:
        return slopes @ prototypes, slopes.T @ x

    def step() -> None:
        logits(x, prototypes).block_until_ready()
        logits(x, prototypes).block_until_ready()
        jax.block_until_ready(gradients(x, prototypes, slopes))

    return step


def reference(classes: int, batch: int, width: int, class_block: int | None) -> Step:
    """A-Softmax in PyTorch as it is usually written: one-hot scatter, temporaries [B, C]."""
    import torch
    from torch.nn import functional

    del class_block
    x, prototypes, labels = map(torch.from_numpy, make_arrays(classes, batch, width))
    x, weight = (torch.nn.Parameter(tensor) for tensor in (x, prototypes))
    labels = labels.long()

    def step() -> None:
        x.grad = weight.grad = None
        norms = x.norm(2, 1)
        cosine = functional.linear(functional.normalize(x), functional.normalize(weight))
        cosine = cosine.clamp(-1, 1)
        multiple = 8 * cosine**4 - 8 * cosine**2 + 1
        theta = cosine.data.acos()
        k = (MARGIN * theta / np.pi).floor()
        phi = (-1.0) ** k * multiple - 2 * k
        one_hot = torch.zeros_like(cosine)
        one_hot.scatter_(1, labels.view(-1, 1), 1)
        logits = (one_hot * (phi - cosine) / (1 + ANNEALING_LAMBDA) + cosine) * norms.view(-1, 1)
        functional.cross_entropy(logits, labels).backward()

    return step


def metric_learning(classes: int, batch: int, width: int, class_block: int | None) -> Step:
    """SphereFaceLoss of pytorch-metric-learning, which anneals nothing."""
    import torch
    from pytorch_metric_learning.losses import SphereFaceLoss

    del class_block
    x, prototypes, labels = map(torch.from_numpy, make_arrays(classes, batch, width))
    loss = SphereFaceLoss(classes, width, margin=MARGIN, scale=1)
    loss.W.data = prototypes.T.contiguous()
    x, labels = torch.nn.Parameter(x), labels.long()

    def step() -> None:
        x.grad = loss.W.grad = None
        loss(x, labels).backward()

    return step


CONTENDERS: dict[str, Callable[[int, int, int, int | None], Step]] = {
    "bare_products": bare_products,
    "dense": ours,
    "streaming": ours,
    "reference": reference,
    "pytorch_metric_learning": metric_learning,
}


def measure(step: Step, rounds: int) -> dict[str, Any]:
    """Times of a step, the first one not counted, and the process's peak memory."""
    held = held_bytes()
    step()
    times = [seconds(step)[1:] for _ in range(rounds)]
    clock, processor = ([round(value, 4) for value in kind] for kind in zip(*times, strict=True))
    return {
        "seconds": min(clock),
        "processor_seconds": min(processor),
        "all_seconds": clock,
        "peak_gib_beyond_inputs": round((peak_bytes() - held) / 2**30, 3),
    }


def main(
    name: str,
    classes: int,
    batch: int,
    width: int,
    /,
    rounds: int = 5,
    class_block: int | None = None,
) -> None:
    """Measures one contender.

    Args:
      name: which.
      classes: C.
      batch: B.
      width: D.
      rounds: steps that are timed.
      class_block: of the streaming head.
    """
    step = CONTENDERS[name](classes, batch, width, class_block)
    print(json.dumps(measure(step, rounds)))


if __name__ == "__main__":
    tyro.cli(main)
