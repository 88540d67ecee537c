"""The whole family at one budget: every loss of `LOSSES` at its own defaults.

One network, one order of examples, one learning rate and number of steps. That is no contest of the
losses at their best: each has a scale and a margin that its authors chose for long runs on many
more people, and a short run favours those that are easy at the start.

    python -m experiments.losses                 # cpu: synthetic faces, tested on strangers
    python -m experiments.losses --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses

from experiments.study import Options, run_study, start
from sphereface_jax.losses import LOSSES
from sphereface_jax.training.config import TrainConfig


def variants(options: Options) -> dict[str, TrainConfig]:
    """A config for each loss."""
    base = options.base_config()
    names = list(LOSSES)
    if options.preset == "smoke":
        names = ["subcenter_arcface", "adaface", "sphereface2"]  # their states differ in kind
    return {
        name: dataclasses.replace(base, loss=dataclasses.replace(base.loss, name=name, margin=None))
        for name in names
    }


def main(options: Options) -> None:
    """Trains and examines each."""
    run_study("losses", options, variants(options))


if __name__ == "__main__":
    start(main, Options, __doc__)
