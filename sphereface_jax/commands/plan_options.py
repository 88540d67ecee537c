"""The options of `sphereface plan` beside those of `train`."""

from dataclasses import dataclass
from pathlib import Path

from sphereface_jax.training.settings import COUNT, POSITIVE, check_fields, setting


@dataclass(frozen=True)
class PlanOptions:
    """What to compile for."""

    target: str = setting("h100x8", "free")
    """A chip and how many: h100x8, a100x1, h200x4, v5e-256, v5p-128, v6e-64; an unknown one lists
    all."""
    num_classes: int = setting(10_572, "free", COUNT)
    """Identities, as many as the data have; CASIA-WebFace's by default."""
    json: Path | None = setting(None, "free")
    """Write all of it to this file too."""
    search: bool = setting(False, "free")
    """Try other mesh.model, class-block, sample-rate and accumulate, and name the best that fit."""
    minutes: float = setting(10.0, "free", POSITIVE)
    """How long a search may take."""
    cache: Path | None = setting(None, "free")
    """What compilers said in searches; ~/.cache/sphereface_jax/plan.json by default."""

    def __post_init__(self) -> None:
        check_fields(self)
