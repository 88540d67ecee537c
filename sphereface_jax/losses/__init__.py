"""The losses: embeddings, prototypes, labels in, one value per example out.

Every loss is a function NAME_loss(embeddings [B, D], prototypes [C, D], labels [B], *, ...) -> [B],
of which a caller takes the mean. A loss that carries state takes `state` and returns it beside the
loss. `margin_loss` is the engine, open to a margin of one's own; `LOSSES` says what the trainer
needs to know of each.
"""

from sphereface_jax.losses import adaptive, additive, class_size, elastic, softmax, sphereface
from sphereface_jax.losses.table import Loss

LOSSES: dict[str, Loss] = (
    softmax.LOSSES
    | sphereface.LOSSES
    | additive.LOSSES
    | adaptive.LOSSES
    | elastic.LOSSES
    | class_size.LOSSES
)
