"""What λ is for: which schedules of A-Softmax learn, and which stay at chance or diverge.

The question that users of SphereFace ask most (wy1iu/sphereface issues 6, 7, 17, 40, 59, 95, 103):
λ = max(λ_min, base · (1 + γ · iteration)^−power) mixes the plain logit into that of m = 4. While λ
is large the loss is the softmax's; as it falls, the margin appears. Each variant changes one of
the four numbers. Nothing clips the gradient here, so that what diverges may.

    python -m experiments.lambda_schedules    # cpu: synthetic faces, tested on strangers
    python -m experiments.lambda_schedules --preset paper --train CASIA --pairs PAIRS --images LFW
"""

import dataclasses

from experiments.study import Options, run_study, start
from sphereface_jax.training.config import LossConfig, TrainConfig


def schedules(usual: LossConfig) -> dict[str, LossConfig]:
    """The schedules by name, around the usual one."""
    gamma = usual.lambda_gamma
    changes = {
        f"base 1000, γ {gamma:g}, λ_min 5": {},
        "λ_min 10": {"lambda_minimum": 10.0},
        "λ_min 2": {"lambda_minimum": 2.0},
        "λ_min 0": {"lambda_minimum": 0.0},
        f"γ {gamma / 10:g}, slower": {"lambda_gamma": gamma / 10},
        f"γ {gamma * 10:g}, faster": {"lambda_gamma": gamma * 10},
        "λ 5 from the start": {"lambda_base": 5.0, "lambda_gamma": 0.0},
        "λ 0 from the start": {"lambda_base": 0.0, "lambda_minimum": 0.0},
    }
    return {name: dataclasses.replace(usual, **change) for name, change in changes.items()}


def variants(options: Options) -> dict[str, TrainConfig]:
    """A config for each schedule."""
    base = options.base_config()
    optimizer = dataclasses.replace(base.optimizer, schedule="step", clip_norm=None)
    base = dataclasses.replace(base, optimizer=optimizer)
    losses = schedules(base.loss)
    if options.preset == "smoke":
        losses = dict(list(losses.items())[-2:])
    return {name: dataclasses.replace(base, loss=loss) for name, loss in losses.items()}


def main(options: Options) -> None:
    """Trains and examines each."""
    run_study("lambda_schedules", options, variants(options))


if __name__ == "__main__":
    start(main, Options, __doc__)
