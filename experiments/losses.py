"""The whole family at one budget: every loss of `LOSSES` with its own margin.

One network, one order of examples, one learning rate and number of steps. The network is SFNet with
batch normalisation, OpenSphere's, which keeps embeddings at one length: without that, the losses
that normalise them have gradients of scale / ‖x‖ and scatter in the first steps (on SphereNet-4 at
scale 64, lengths beyond 1,000 and 59 to 62 % of strangers' pairs right). In the cpu preset the
scale is 16, enough for 500 people; the papers' 64 is for many more people and steps.

That is no contest of the losses at their best, for which each would be tuned by itself.

    python -m experiments.losses                 # cpu: synthetic faces, tested on strangers
    python -m experiments.losses --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses
import functools

from experiments.study import Options, run_study, start
from sphereface_jax.losses import LOSSES
from sphereface_jax.training.config import LossConfig, TrainConfig

SMALL_SCALE = 16.0
NETWORKS = {"smoke": "sfnet4_bn", "cpu": "sfnet4_bn", "paper": "sfnet20_bn"}
SOME = ("subcenter_arcface", "adaface", "sphereface2")  # whose states differ in kind


def loss_config(base: LossConfig, name: str, *, is_small: bool) -> LossConfig:
    """A loss with its own margin, and in small its scale, where it has one, made small."""
    has_scale = LOSSES[name].hyperparameters.get("scale") is not None
    scale = SMALL_SCALE if is_small and has_scale else None
    return dataclasses.replace(base, name=name, margin=None, scale=scale)


def variants(options: Options) -> dict[str, TrainConfig]:
    """A config for each loss."""
    base = options.base_config()
    model = dataclasses.replace(base.model, name=NETWORKS[options.preset])
    is_small = options.preset != "paper"
    return {
        name: dataclasses.replace(
            base, model=model, loss=loss_config(base.loss, name, is_small=is_small)
        )
        for name in (SOME if options.preset == "smoke" else LOSSES)
    }


main = functools.partial(run_study, "losses", variants)

if __name__ == "__main__":
    start(main, Options, __doc__)
