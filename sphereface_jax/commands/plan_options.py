"""The options of `sphereface plan` beside those of `train`."""

from dataclasses import dataclass
from pathlib import Path

from sphereface_jax.training.config import COUNT, POSITIVE, check_options, ranged


@dataclass(frozen=True)
class PlanOptions:
    """What to compile for."""

    target: str = "h100x8"
    """A chip and how many: h100x8, a100x1, h200x4, v5e-256, v5p-128, v6e-64; an unknown one lists
    all."""
    num_classes: int = ranged(10_572, COUNT)
    """Identities, as many as the data have; CASIA-WebFace's by default."""
    json: Path | None = None
    """Write all of it to this file too."""
    search: bool = False
    """Try other mesh.model, class-block, sample-rate and accumulate, and name the best that fit."""
    minutes: float = ranged(10.0, POSITIVE)
    """How long a search may take."""
    cache: Path | None = None
    """What compilers said in searches; ~/.cache/sphereface_jax/plan.json by default."""

    def __post_init__(self) -> None:
        check_options(self)
