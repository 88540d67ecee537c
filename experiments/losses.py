"""The whole family at one budget: every loss of `LOSSES` with its own margin.

One network, one order of examples, one learning rate and number of steps. The network is SFNet with
batch normalisation, OpenSphere's, which keeps embeddings at one length: without that, the losses
that normalise them have gradients of scale / ‖x‖ and scatter in the first steps (on SphereNet-4 at
scale 64, lengths beyond 1,000 and 59 to 62 % of strangers' pairs right). In the cpu preset the
scale is 16, enough for 500 people; the papers' 64 is for many more people and steps.

That is no contest of the losses at their best, for which each would be tuned by itself.

    python -m experiments.losses                 # cpu: synthetic faces, tested on strangers
    python -m experiments.losses --preset faces --train LIST --root FACES \
        --pairs PAIRS --images LFW
    python -m experiments.losses --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses
import functools

from experiments.study import StudyOptions, run_study, start
from sphereface_jax.losses import LOSSES
from sphereface_jax.training.config import LossConfig, TrainConfig

SCALES = {"smoke": 16.0, "cpu": 16.0, "faces": 30.0, "paper": None}  # None: each loss's own
NETWORKS = {
    "smoke": "sfnet4_bn",
    "cpu": "sfnet4_bn",
    "faces": "sfnet4_bn",
    "paper": "sfnet20_bn",
}
SOME = {
    "smoke": ("subcenter_arcface", "adaface", "sphereface2"),  # whose states differ in kind
    "faces": ("softmax", "normalized_softmax", "sphereface", "sphereface_r", "cosface", "arcface"),
}  # all elsewhere


def loss_config(base: LossConfig, name: str, scale: float | None) -> LossConfig:
    """A loss with its own margin, and a scale where it has one."""
    if LOSSES[name].hyperparameters.get("scale") is None:
        scale = None
    return dataclasses.replace(base, name=name, margin=None, scale=scale)


def variants(options: StudyOptions) -> dict[str, TrainConfig]:
    """A config for each loss."""
    base = options.base_config()
    model = dataclasses.replace(base.model, name=options.choose(NETWORKS))
    scale = options.choose(SCALES)
    return {
        name: dataclasses.replace(base, model=model, loss=loss_config(base.loss, name, scale))
        for name in SOME.get(options.preset, LOSSES)
    }


main = functools.partial(run_study, "losses", variants)

if __name__ == "__main__":
    start(main, StudyOptions, __doc__)
