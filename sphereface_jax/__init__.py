"""Angular-margin learning of face embeddings in JAX."""

from sphereface_jax.geometry import cosine, monotone_psi, normalize, safe_norm
from sphereface_jax.losses import sphereface_logits, sphereface_loss
from sphereface_jax.schedules import annealed_lambda, cosine_decay, step_decay

__version__ = "0.1.0"

__all__ = [
    "annealed_lambda",
    "cosine",
    "cosine_decay",
    "monotone_psi",
    "normalize",
    "safe_norm",
    "sphereface_logits",
    "sphereface_loss",
    "step_decay",
]
