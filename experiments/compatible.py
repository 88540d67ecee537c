"""A new network whose vectors compare with an old one's: backward-compatible training, measured.

An old network (half the people, width and steps), a new one trained alone, and a new one trained
`--compatible-with` the old: TAR of old against old, new against new, and old against new vectors,
over all pairs of pictures of people whom no network saw. Beside it stands the bridge, a map from
the old vectors to those of the network trained alone, learnt from half of these people and measured
on the other half; all numbers are of that other half.

    python -m experiments.compatible             # cpu: synthetic faces
    python -m experiments.compatible --train FACES   # a folder, a fifth of its people held out
"""

import dataclasses
from typing import Any

import numpy as np

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.study import Options, start
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.bridge import candidate_maps, cross_tar
from sphereface_jax.training.config import LossConfig, TrainConfig, ValConfig
from sphereface_jax.training.input import open_training_data
from sphereface_jax.training.loop import train

FAR = 1e-2


def variants(options: Options) -> dict[str, TrainConfig]:
    """The old network, the new one alone, and the new one that stays compatible."""
    folder = options.runs / options.title("compatible")
    new = dataclasses.replace(options.base_config(), out=folder / "alone")
    new = dataclasses.replace(
        new, steps=4 * new.steps, loss=LossConfig("cosface", scale=30, margin=0.35)
    )
    if options.train is not None:
        new = dataclasses.replace(new, val=ValConfig(fraction=0.2, every=new.steps))
        data = dataclasses.replace(new.data, resize=True)
        # Real faces are harder: batch normalisation and a λ that waits, or the network collapses.
        new = dataclasses.replace(
            new,
            data=data,
            batch_size=128,
            steps=2 * new.steps,
            model=dataclasses.replace(new.model, name="sfnet10_bn", embedding_dim=128),
            loss=LossConfig(margin=4, lambda_gamma=0.0014, lambda_power=7.9),
            optimizer=dataclasses.replace(new.optimizer, learning_rate=0.06, warmup_steps=100),
        )
    narrow = tuple(max(4, width // 2) for width in new.model.channels)
    learnt, held_out = open_training_data(new)
    data = dataclasses.replace(new.data, synthetic_identities=len(learnt.identities) // 2)
    if held_out is not None:
        names = *held_out.identities, *learnt.identities[::2]
        data = dataclasses.replace(new.data, exclude=tuple(map(str, names)))
    old = dataclasses.replace(
        new,
        out=folder / "old",
        data=data,
        steps=new.steps // 2,
        model=dataclasses.replace(new.model, channels=narrow),
        val=ValConfig(),
    )
    return {
        "old": old,
        "alone": new,
        "compatible": dataclasses.replace(new, out=folder / "compatible", compatible_with=old.out),
    }


def main(options: Options) -> None:
    """Trains the three, compares their vectors, and writes the results."""
    configs, out = variants(options), options.results_file("compatible")
    if options.train is None:
        people, size = (300, configs["old"].data.image_size)
        held_out: Any = SyntheticFaces(people, 4, image_size=size, first_identity=2_000_000)
    else:
        held_out = open_training_data(configs["alone"])[1]
    labels, found = np.asarray(held_out.labels), {}
    for name, config in configs.items():
        train(config)
        embeddings, mirrored = FaceEmbedder.from_run(config.out).embed_source(held_out)
        found[name] = embeddings + mirrored
    learning = labels % 2 == 0
    maps = candidate_maps(found["old"][learning], found["alone"][learning])
    chosen = max(
        maps,
        key=lambda link: (
            cross_tar(
                link(found["old"][learning]), found["alone"][learning], labels[learning], far=FAR
            ).tar.rate
        ),
    )
    rest = labels[~learning]
    old, alone, compatible = (found[name][~learning] for name in configs)
    rows = {
        "old against old": cross_tar(old, old, rest, far=FAR),
        "alone against alone": cross_tar(alone, alone, rest, far=FAR),
        "compatible against compatible": cross_tar(compatible, compatible, rest, far=FAR),
        "old against compatible": cross_tar(old, compatible, rest, far=FAR),
        "old against alone": cross_tar(old, alone, rest, far=FAR),
        "old, mapped, against alone": cross_tar(chosen(old), alone, rest, far=FAR),
    }
    for name, row in rows.items():
        tar = row.tar
        print(f"{name:30} TAR {tar.rate:.2%} ({tar.low:.2%} to {tar.high:.2%}) at FAR {FAR:g}")
    results = {
        "experiment": "compatible",
        "preset": options.preset,
        "faces": "synthetic" if options.train is None else options.train.rstrip("/").split("/")[-1],
        "people": len(np.unique(rest)),
        "rows": {name: row.to_json() for name, row in rows.items()},
        "machine": describe_machine(),
    }
    write_results(out, results)


if __name__ == "__main__":
    start(main, Options, __doc__)
