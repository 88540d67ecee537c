"""Angular-margin learning of face embeddings in JAX.

This module holds what is light: the losses (`sphereface_loss`, `arcface_loss`, ...; `margin_loss`
for a margin of one's own; the table of them is `LOSSES`), the schedules of λ and the learning rate,
and the geometry beneath. Models, data, training and evaluation are in the subpackages of their
names.
"""

from sphereface_jax.geometry import cosine, monotone_psi, normalize, safe_norm
from sphereface_jax.losses import LOSSES
from sphereface_jax.losses.adaptive import (
    adaface_logits,
    adaface_loss,
    curricularface_logits,
    curricularface_loss,
    magface_logits,
    magface_loss,
)
from sphereface_jax.losses.additive import (
    arcface_logits,
    arcface_loss,
    combined_margin_logits,
    combined_margin_loss,
    cosface_logits,
    cosface_loss,
    subcenter_arcface_logits,
    subcenter_arcface_loss,
    uniface_bias_init,
    uniface_loss,
)
from sphereface_jax.losses.class_size import (
    class_size_margins,
    dynamic_arcface_loss,
    ldam_loss,
)
from sphereface_jax.losses.elastic import (
    elastic_arcface_loss,
    elastic_arcface_plus_loss,
    elastic_cosface_loss,
    elastic_cosface_plus_loss,
)
from sphereface_jax.losses.margin_loss import (
    margin_logits,
    margin_loss,
    nearest,
    target_cosine,
)
from sphereface_jax.losses.softmax import (
    normalized_softmax_logits,
    normalized_softmax_loss,
    softmax_logits,
    softmax_loss,
)
from sphereface_jax.losses.sphereface import (
    mhe_regularizer,
    sphereface2_bias_init,
    sphereface2_logits,
    sphereface2_loss,
    sphereface_logits,
    sphereface_loss,
    sphereface_plus_logits,
    sphereface_plus_loss,
    sphereface_r_logits,
    sphereface_r_loss,
)
from sphereface_jax.losses.table import Loss
from sphereface_jax.margins import NormStatistics
from sphereface_jax.schedules import annealed_lambda, cosine_decay, step_decay

__version__ = "0.2.0"

__all__ = [
    "LOSSES",
    "Loss",
    "NormStatistics",
    "adaface_logits",
    "adaface_loss",
    "annealed_lambda",
    "arcface_logits",
    "arcface_loss",
    "class_size_margins",
    "combined_margin_logits",
    "combined_margin_loss",
    "cosface_logits",
    "cosface_loss",
    "cosine",
    "cosine_decay",
    "curricularface_logits",
    "curricularface_loss",
    "dynamic_arcface_loss",
    "elastic_arcface_loss",
    "elastic_arcface_plus_loss",
    "elastic_cosface_loss",
    "elastic_cosface_plus_loss",
    "ldam_loss",
    "magface_logits",
    "magface_loss",
    "margin_logits",
    "margin_loss",
    "mhe_regularizer",
    "monotone_psi",
    "nearest",
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
    "target_cosine",
    "uniface_bias_init",
    "uniface_loss",
]
