"""The losses by their papers' names: embeddings, prototypes, labels in, a value an example out.

Every loss is the same sentence: cosines between embeddings and class prototypes; change the
target's (and, for a few losses, the others'); scale; reduce over the classes. `LOSSES` is the table
of them. Each row makes two functions: NAME_loss -> [B], of which a caller takes the mean, and
NAME_logits -> [B, C]. A loss that carries state takes `state` and returns it beside the loss.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax import margins
from sphereface_jax._checks import require, require_floating, require_labels
from sphereface_jax.heads import regularizers
from sphereface_jax.heads.engine import BinaryCrossEntropy
from sphereface_jax.heads.family import Loss
from sphereface_jax.margins import NormStatistics

Array = jax.Array
Scalar = float | jax.Array


def sphereface2_bias_init(
    num_classes: int,
    *,
    variant: str = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
    alpha: Scalar = 0.7,
    scale: Scalar = 40.0,
) -> Array:
    """The bias with which SphereFace2's loss is least while all angles are right ones.

    With z = α / ((1 − α)(C − 1)) and a_y, a_j the logits at θ = π/2 of the target and of the
    others, b = ln 2z − a_j − ln(1 − z + √((1 − z)² + 4z exp(a_y − a_j))).

    Args:
      num_classes: C, at least 2.
      variant: 'C', 'A' or 'M'.
      margin: m; None: the variant's own.
      exponent: t, the curvature of g.
      alpha: weight of the positive decisions.
      scale: r, what the similarities are multiplied by.

    Returns:
      b, a scalar: the state that `sphereface2_loss` starts with.

    Raises:
      ValueError: if there are fewer than two classes or the variant is another.

    References:
      Wen et al., SphereFace2: Binary Classification is All You Need for Deep Face Recognition,
      ICLR 2022, https://arxiv.org/abs/2108.01513.
    """
    is_enough = isinstance(num_classes, numbers.Integral) and num_classes >= 2
    require(is_enough, "num_classes", "an integer of at least 2", num_classes)
    options: dict[str, Any] = {"variant": variant, "margin": margin, "exponent": exponent}
    right_angle = jnp.zeros(())
    target = scale * margins.sphereface2(right_angle, right_angle, None, **options)
    other = scale * margins.sphereface2_negatives(right_angle, right_angle, None, **options)
    gap = target - other
    odds = alpha / ((1 - alpha) * (num_classes - 1))
    root = jnp.sqrt((1 - odds) ** 2 + 4 * odds * jnp.exp(gap))
    # With few classes z > 1 and 1 − z + √ cancels; (1 − z + √)(z − 1 + √) = 4z exp(a_y − a_j).
    log_sum = jnp.log(jnp.abs(1 - odds) + root)
    log_sum = jnp.where(odds > 1, jnp.log(4 * odds) + gap - log_sum, log_sum)
    return jnp.log(2 * odds) - other - log_sum


def mhe_regularizer(prototypes: Array, labels: Array, *, num_classes: int | None = None) -> Array:
    """Minimum hyperspherical energy: mean θ⁻² over the pairs of different classes in a batch.

    It pushes prototypes apart, and can be added to any loss.

    Args:
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1; a class counts once.
      num_classes: how many of the rows are classes; all by default.

    Returns:
      The energy, a scalar; zero where the batch holds one class only. Angles below 4.5e-3 rad
      count as that, so that two prototypes that coincide have a finite energy.

    Raises:
      ValueError: if an argument is not as above.

    References:
      Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018,
      https://arxiv.org/abs/1805.09298.
    """
    rows, _ = require_floating("prototypes", prototypes, "C, D")
    require_labels("labels", labels, len(labels), rows if num_classes is None else num_classes)
    rows_of_batch = jnp.asarray(prototypes)[jnp.asarray(labels)]
    return regularizers.hyperspherical_energy(rows_of_batch, jnp.asarray(labels))


_TABLE = (
    Loss(
        name="softmax",
        summary="Softmax cross entropy over inner products; nothing is normalised.",
        formula="f_j = x·w_j + b_j.",
        source="Bridle, Probabilistic Interpretation of Feedforward Classification, 1990.",
        target=margins.identity,
        normalized=False,
        class_bias=True,
    ),
    Loss(
        name="normalized_softmax",
        summary="Softmax cross entropy over scaled cosines, without a margin.",
        formula="f_j = s c_j.",
        source="Wang et al., NormFace, ACM MM 2017, https://arxiv.org/abs/1704.06369.",
        target=margins.identity,
        scale=64.0,
    ),
    Loss(
        name="sphereface",
        summary="SphereFace's angular softmax loss (A-Softmax).",
        formula="f_y = ‖x‖ (c_y + (ψ(c_y) − c_y) / (1 + λ)) and f_j = ‖x‖ c_j,\n"
        "c being cosines and ψ the monotone extension of cos(mθ), m an integer.",
        source="Liu et al., SphereFace, CVPR 2017, https://arxiv.org/abs/1704.08063.",
        target=margins.sphereface,
        target_gradient=margins.sphereface_caffe_gradient,
        example="""\
>>> import jax.numpy as jnp
>>> from sphereface_jax import sphereface_loss
>>> embeddings = jnp.array([[3.0, 0.0], [0.0, 2.0]])
>>> prototypes = jnp.array([[1.0, 0.0], [0.0, 1.0]])
>>> print(sphereface_loss(embeddings, prototypes, jnp.array([0, 1])).round(3))
[0.049 0.127]""",
    ),
    Loss(
        name="sphereface_r",
        summary="SphereFace-R: SphereFace revived, with real-valued margins.",
        formula="v0: f_y = s ψ(c_y); v1: f_y = s cos(min(mθ_y, π)); f_j = s c_j for both;\n"
        "v2: f_y = s c_y and f_j = s cos(θ_j / m).\n"
        "The loss is w/s times their cross entropy. scale=None keeps each embedding's length in\n"
        "place of s and leaves the cross entropy as it is (no feature normalisation).",
        source="Liu et al., SphereFace Revived, TPAMI 2022, https://arxiv.org/abs/2109.05565.",
        target=margins.sphereface_r,
        negatives=margins.sphereface_r_negatives,
        scale=60.0,
        loss_weight=50.0,
    ),
    Loss(
        name="sphereface_plus",
        summary="SphereFace+: SphereFace with minimum hyperspherical energy (MHE).",
        formula="f_y = ‖x‖ (c_y + (ψ(c_y) − c_y) / (1 + λ)) and f_j = ‖x‖ c_j;\n"
        "λ_MHE times `mhe_regularizer` is added to every example's cross entropy.",
        source="Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018, "
        "https://arxiv.org/abs/1805.09298.",
        target=margins.sphereface,
        target_gradient=margins.sphereface_caffe_gradient,
        regularizer=regularizers.mhe,
    ),
    Loss(
        name="sphereface2",
        summary="SphereFace2: one binary decision a class.",
        formula="C: f_y = r (g(c_y) − m) + b and f_j = r (g(c_j) + m) + b;\n"
        "A: f_y = r g(cos(min(θ_y + m, π))) + b and f_j = r g(c_j) + b;\n"
        "M: f_y = r g(cos(min(mθ_y, π))) + b and f_j = r g(c_j) + b;\n"
        "with g(c) = 2((c + 1)/2)^t − 1, m = 0.4, 0.5 or 1.7, and the bias b as state.\n"
        "The loss is w/r (α softplus(−f_y) + (1 − α) Σ_j softplus(f_j)); r is called scale.",
        source="Wen et al., SphereFace2, ICLR 2022, https://arxiv.org/abs/2108.01513.",
        target=margins.sphereface2,
        negatives=margins.sphereface2_negatives,
        start=sphereface2_bias_init,
        state_is_bias=True,
        scale=40.0,
        loss_weight=10.0,
        reduction=BinaryCrossEntropy,
        example="""\
>>> import jax.numpy as jnp
>>> from sphereface_jax import sphereface2_bias_init, sphereface2_loss
>>> embeddings, prototypes = jnp.array([[3.0, 4.0]]), jnp.eye(2)
>>> bias = sphereface2_bias_init(num_classes=2)
>>> loss, bias = sphereface2_loss(embeddings, prototypes, jnp.array([1]), state=bias)
>>> print(loss.round(2))
[4.74]""",
    ),
    Loss(
        name="cosface",
        summary="CosFace, or AM-Softmax: an additive margin on the cosine.",
        formula="f_y = s (c_y − m) and f_j = s c_j.",
        source="Wang et al., CosFace, CVPR 2018, https://arxiv.org/abs/1801.09414.",
        target=margins.cosface,
        scale=64.0,
    ),
    Loss(
        name="arcface",
        summary="ArcFace: an additive margin on the angle.",
        formula="f_y = s cos(θ_y + m) and f_j = s c_j. Past θ_y = π − m, f_y / s is\n"
        "cos(θ_y + m), which rises again (keep), c_y − m sin m (linear), or −1 (clamp).",
        source="Deng et al., ArcFace, CVPR 2019, https://arxiv.org/abs/1801.07698.",
        target=margins.arcface,
        scale=64.0,
    ),
    Loss(
        name="combined_margin",
        summary="The combined margin of SphereFace, ArcFace and CosFace.",
        formula="f_y = s (cos(m₁θ_y + m₂) − m₃), which is not made monotone, and f_j = s c_j.",
        source="Deng et al., ArcFace, CVPR 2019, https://arxiv.org/abs/1801.07698.",
        target=margins.combined,
        scale=64.0,
    ),
    Loss(
        name="subcenter_arcface",
        summary="Sub-centre ArcFace: K prototypes a class, of which the nearest counts.",
        formula="f_y = s cos(θ_y + m) and f_j = s c_j with c_j = max_k cos(x, w_jk);\n"
        "past θ_y = π − m as for ArcFace.",
        source="Deng et al., Sub-center ArcFace, ECCV 2020.",
        target=margins.arcface,
        scale=64.0,
        num_subcenters=3,
    ),
    Loss(
        name="curricularface",
        summary="CurricularFace: hard classes count for more as training goes on.",
        formula="f_y = s cos(θ_y + m), or s (c_y − m sin m) past θ_y = π − m;\n"
        "f_j = s c_j (t + c_j) where c_j > cos(θ_y + m), else s c_j.\n"
        "The state t is the running mean of c_y, updated before it is used.",
        source="Huang et al., CurricularFace, CVPR 2020, https://arxiv.org/abs/2004.00288.",
        target=margins.curricularface,
        negatives=margins.curricularface_negatives,
        update=margins.curricularface_update,
        start=lambda num_classes: jnp.zeros(()),
        scale=64.0,
    ),
    Loss(
        name="magface",
        summary="MagFace: the margin grows with the embedding's length, which is rewarded.",
        formula="f_y = s cos(θ_y + m(a)) where c_y > 0, else s c_y, and f_j = s c_j, with\n"
        "a = ‖x‖ clipped to [l, u] and m(a) rising linearly from m_l to m_u;\n"
        "λ_g (a/u² + 1/a) is added to the cross entropy.",
        source="Meng et al., MagFace, CVPR 2021, https://arxiv.org/abs/2103.06627.",
        target=margins.magface,
        regularizer=regularizers.magface_norms,
        scale=64.0,
    ),
    Loss(
        name="adaface",
        summary="AdaFace: the margin adapts to image quality, read from the embedding's length.",
        formula="f_y = s (cos(θ_y − mz) − m − mz) and f_j = s c_j, with\n"
        "z = h (‖x‖ − μ)/(σ + ε) clipped to [−1, 1] and detached, c kept ε from ±1 and θ_y − mz\n"
        "in [ε, π − ε], ε = 1e-3. The state is the running mean μ and deviation σ of ‖x‖,\n"
        "clipped to [1e-3, 100], updated before it is used.",
        source="Kim et al., AdaFace, CVPR 2022, https://arxiv.org/abs/2204.00964.",
        target=margins.adaface,
        negatives=margins.adaface_negatives,
        update=margins.adaface_update,
        start=lambda num_classes: NormStatistics(jnp.float32(20.0), jnp.float32(100.0)),
        scale=64.0,
        example="""\
>>> import jax.numpy as jnp
>>> from sphereface_jax import LOSSES, adaface_loss
>>> embeddings, prototypes = jnp.array([[3.0, 4.0]]), jnp.eye(2)
>>> state = LOSSES["adaface"].init_state(num_classes=2)
>>> loss, state = adaface_loss(embeddings, prototypes, jnp.array([1]), state=state)
>>> print(loss.round(2), state.mean.round(2))
[12.3] 19.85""",
    ),
)

LOSSES: dict[str, Loss] = {row.name: row for row in _TABLE}

softmax_loss, softmax_logits = LOSSES["softmax"].functions
normalized_softmax_loss, normalized_softmax_logits = LOSSES["normalized_softmax"].functions
sphereface_loss, sphereface_logits = LOSSES["sphereface"].functions
sphereface_r_loss, sphereface_r_logits = LOSSES["sphereface_r"].functions
sphereface_plus_loss, sphereface_plus_logits = LOSSES["sphereface_plus"].functions
sphereface2_loss, sphereface2_logits = LOSSES["sphereface2"].functions
cosface_loss, cosface_logits = LOSSES["cosface"].functions
arcface_loss, arcface_logits = LOSSES["arcface"].functions
combined_margin_loss, combined_margin_logits = LOSSES["combined_margin"].functions
subcenter_arcface_loss, subcenter_arcface_logits = LOSSES["subcenter_arcface"].functions
curricularface_loss, curricularface_logits = LOSSES["curricularface"].functions
magface_loss, magface_logits = LOSSES["magface"].functions
adaface_loss, adaface_logits = LOSSES["adaface"].functions
