"""Angular-margin learning of face embeddings in JAX.

This module holds what is light: the losses (`sphereface_loss`, `arcface_loss`, ...; the table of
them is `LOSSES`), the schedules of λ and the learning rate, and the geometry beneath. Models, data,
training and evaluation are in the subpackages of their names.
"""

from sphereface_jax.geometry import cosine, monotone_psi, normalize, safe_norm
from sphereface_jax.losses import (
    LOSSES,
    adaface_logits,
    adaface_loss,
    arcface_logits,
    arcface_loss,
    combined_margin_logits,
    combined_margin_loss,
    cosface_logits,
    cosface_loss,
    curricularface_logits,
    curricularface_loss,
    magface_logits,
    magface_loss,
    mhe_regularizer,
    normalized_softmax_logits,
    normalized_softmax_loss,
    softmax_logits,
    softmax_loss,
    sphereface2_bias_init,
    sphereface2_logits,
    sphereface2_loss,
    sphereface_logits,
    sphereface_loss,
    sphereface_plus_logits,
    sphereface_plus_loss,
    sphereface_r_logits,
    sphereface_r_loss,
    subcenter_arcface_logits,
    subcenter_arcface_loss,
)
from sphereface_jax.margins import NormStatistics
from sphereface_jax.schedules import annealed_lambda, cosine_decay, step_decay

__version__ = "0.1.0"

__all__ = [
    "LOSSES",
    "NormStatistics",
    "adaface_logits",
    "adaface_loss",
    "annealed_lambda",
    "arcface_logits",
    "arcface_loss",
    "combined_margin_logits",
    "combined_margin_loss",
    "cosface_logits",
    "cosface_loss",
    "cosine",
    "cosine_decay",
    "curricularface_logits",
    "curricularface_loss",
    "magface_logits",
    "magface_loss",
    "mhe_regularizer",
    "monotone_psi",
    "normalize",
    "normalized_softmax_logits",
    "normalized_softmax_loss",
    "safe_norm",
    "softmax_logits",
    "softmax_loss",
    "sphereface2_bias_init",
    "sphereface2_logits",
    "sphereface2_loss",
    "sphereface_logits",
    "sphereface_loss",
    "sphereface_plus_logits",
    "sphereface_plus_loss",
    "sphereface_r_logits",
    "sphereface_r_loss",
    "step_decay",
    "subcenter_arcface_logits",
    "subcenter_arcface_loss",
]
