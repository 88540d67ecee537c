"""Three gradients of one loss: the exact one, the detached one, and the authors' Caffe layer's.

All have the same value. `exact` differentiates ψ, whose slope in the cosine reaches m²; `caffe`
scales the embedding's gradient to a bounded length, mixes in λ parts of the plain one and gives the
prototypes that of a linear layer, after which they return to the sphere; `detached` passes the
plain cosine's gradient (OpenSphere). Formulas: docs/losses.md, "Gradients".

Measured on two cores of an AMD EPYC in 53 s, ten-fold accuracy on 6,000 pairs of strangers: exact
93.58 % ± 1.21 %, detached 92.38 % ± 1.64 %, caffe 91.70 % ± 1.35 %. The bounded gradient of `caffe`
learns more slowly, and 300 steps are few.

    python -m experiments.gradients              # cpu: synthetic faces, tested on strangers
    python -m experiments.gradients --preset faces --train LIST --root FACES \
        --pairs PAIRS --images LFW
    python -m experiments.gradients --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses
import functools

from experiments.study import StudyOptions, run_study, start
from sphereface_jax.training.config import TrainConfig

GRADIENTS = ("exact", "detached", "caffe")


def variants(options: StudyOptions) -> dict[str, TrainConfig]:
    """A config for each gradient."""
    base = options.base_config()
    return {
        gradient: dataclasses.replace(base, loss=dataclasses.replace(base.loss, gradient=gradient))
        for gradient in GRADIENTS[options.preset == "smoke" :]
    }


main = functools.partial(run_study, "gradients", variants)

if __name__ == "__main__":
    start(main, StudyOptions, __doc__)
