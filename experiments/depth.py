"""What depth does: SphereNet with 4, 10, 20, 36 and 64 convolutions, at one budget.

The paper's comparison of depths, on the same loss and data. The cpu preset stops at 20; the deeper
two want an accelerator.

Measured on two cores of an AMD EPYC in 156 s, ten-fold accuracy on 6,000 pairs of strangers: depth
4 93.58 % ± 1.21 %, 10 93.90 % ± 1.45 %, 20 93.40 % ± 1.37 %, which is no difference; TAR at FAR
1e-3 rises from 29 to 34 and 37 %.

    python -m experiments.depth                  # cpu: synthetic faces, tested on strangers
    python -m experiments.depth --preset faces --train LIST --root FACES \
        --pairs PAIRS --images LFW
    python -m experiments.depth --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses
import functools

from experiments.study import StudyOptions, run_study, start
from sphereface_jax.training.config import TrainConfig

DEPTHS = {
    "smoke": (4, 10),
    "cpu": (4, 10, 20),
    "faces": (4, 10, 20),
    "paper": (4, 10, 20, 36, 64),
}


def variants(options: StudyOptions) -> dict[str, TrainConfig]:
    """A config for each depth; the faces preset takes SFNet with batch normalisation."""
    base = options.base_config()
    title, name = (
        ("SFNet", "sfnet{}_bn") if options.preset == "faces" else ("SphereNet", "spherenet{}")
    )
    return {
        f"{title}-{depth}": dataclasses.replace(
            base, model=dataclasses.replace(base.model, name=name.format(depth))
        )
        for depth in options.choose(DEPTHS)
    }


main = functools.partial(run_study, "depth", variants)

if __name__ == "__main__":
    start(main, StudyOptions, __doc__)
