"""Names the examples of one batch, for a run that stopped in it."""

from pathlib import Path

from sphereface_jax.data.pipeline import ShuffledOrder
from sphereface_jax.data.source import FaceSource
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.distributed import is_main
from sphereface_jax.training.run_folder import write_json

FILE_NAME = "suspects.json"


def name_batch(run: Path, source: FaceSource, config: TrainConfig, step: int) -> str:
    """Writes which images a step saw to RUN/suspects.json.

    Args:
      run: the run's folder.
      source: the faces it trains on.
      config: of the run; its seed decides the order.
      step: the step, from 1.

    Returns:
      A few words on them, to end a sentence with.
    """
    order = ShuffledOrder(len(source), config.seed)
    first = (step - 1) * config.batch_size
    examples = [
        {"example": example, "image": source.describe(order(example))}
        for example in range(first, first + config.batch_size)
    ]
    path = run / FILE_NAME
    if is_main():
        write_json(path, {"step": step, "examples": examples})
    return f"in examples {first} to {examples[-1]['example']}, whose images {path} names"
