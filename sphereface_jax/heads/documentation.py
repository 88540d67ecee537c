"""The docstrings of the public losses, made from their rows."""

import inspect
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphereface_jax.heads.family import Loss

# What a keyword of this name means, in whichever loss it occurs.
MEANINGS = {
    "alpha": "weight of the positive decisions; that of the negative ones is 1 − alpha.",
    "annealing_lambda": "λ of at least 0, which mixes the plain cosine in; see `annealed_lambda`.",
    "beyond": "what follows past θ = π − m: 'keep', 'linear' or 'clamp'.",
    "bias": "added to the logits, [C]; none by default.",
    "class_block": "classes that are looked at together, so that no array [B, C] exists, at the "
    "price of looking at them twice; None: all.",
    "concentration": "h, how far a norm one deviation from the mean moves the margin.",
    "exponent": "t, the curvature of g.",
    "gradient": "'exact': of the formula. 'detached': of the plain cosine; the margin moves the "
    "value only.",
    "loss_weight": "w; of no effect without a scale.",
    "lower_margin": "m_l in radians.",
    "lower_norm": "l; shorter embeddings count as this long.",
    "m1": "factor of the angle.",
    "m2": "added to the angle, in radians.",
    "m3": "subtracted from the cosine.",
    "margin": "m, in radians where it is added to an angle.",
    "mesh": "devices over which prototypes are cut along axis 'model' and examples along 'data'; "
    "None: that of `jax.set_mesh`, if it has an axis 'model'.",
    "mhe_weight": "λ_MHE, weight of the regularizer.",
    "norm_weight": "λ_g, weight of the regularizer.",
    "num_classes": "rows of prototypes from here on are no classes: they never take part and get "
    "gradient zero; all are classes by default.",
    "rate": "share of this batch in the running statistics.",
    "scale": "s, what the cosines are multiplied by; None: each embedding's own length ‖x‖.",
    "state": "what the loss carries through training; starts as "
    "`LOSSES['{name}'].init_state(num_classes)`.",
    "upper_margin": "m_u in radians.",
    "upper_norm": "u; longer embeddings count as this long.",
    "variant": "'C', 'A' or 'M'.",
    "version": "'v0', 'v1' or 'v2'.",
}
_CAFFE = (
    " 'caffe': of the authors' layer, for prototypes projected to unit length after each update."
)
_WRAPPER = textwrap.TextWrapper(width=88, initial_indent="  ", subsequent_indent="    ")


def docstring(row: "Loss", kind: str, signature: inspect.Signature) -> str:
    """The docstring of one of a row's public functions.

    Args:
      row: the row.
      kind: "loss" or "logits".
      signature: the function's signature.

    Returns:
      A Google-style docstring.
    """
    shape = "C, D" if row.num_subcenters is None else "C, K, D"
    returns = {"loss": "Losses [B]; take the mean", "logits": "Logits [B, C], −∞ past num_classes"}
    lengths = "; their lengths do not matter" if row.normalized else ""
    state = ". And the state, updated" if row.start else ""
    arguments = {
        "embeddings": "[B, D], floating point; computed with in float32 at least.",
        "prototypes": f"[{shape}], floating point{lengths}.",
        "labels": "[B], integers from 0 to num_classes − 1.",
    }
    for name in list(signature.parameters)[len(arguments) :]:
        arguments[name] = MEANINGS.get(name, "see above.").format(name=row.name)
    if row.target_gradient:
        arguments["gradient"] += _CAFFE
    sections = [
        ("Args:", [f"{name}: {meaning}" for name, meaning in arguments.items()]),
        ("Returns:", [f"{returns[kind]}{state}."]),
        ("Raises:", ["ValueError: if an argument is not as above; it says which."]),
        ("References:", [row.source]),
    ]
    lines = [f"{'Logits of ' if kind == 'logits' else ''}{row.summary}", "", row.formula]
    for title, items in sections:
        lines += ["", title, *(_WRAPPER.fill(item) for item in items)]
    if kind == "loss" and row.example:
        lines += ["", "Example:", textwrap.indent(row.example, "  ")]
    return "\n".join(lines)
