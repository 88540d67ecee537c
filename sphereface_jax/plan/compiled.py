"""Compiles a run's step for a target and says what the compiler says of it.

    python -m sphereface_jax.plan.compiled < ORDER.json

A process of its own: the compilers want an environment of theirs (`targets.ENVIRONMENT`), and one
that runs out of memory should take nothing with it. ORDER.json holds `config`, `num_classes`,
`target` and `head_alone`; one line of JSON comes out.
"""

import dataclasses
import json
import math
import re
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.plan.program import count_flops, find_collectives
from sphereface_jax.plan.targets import Target, compiler_versions, describe_devices, find_target
from sphereface_jax.training.config import TrainConfig, from_dict
from sphereface_jax.training.distributed import batch_sharding
from sphereface_jax.training.trainer import Trainer, make_trainer

SHARES_OF_PEAK = (0.3, 0.4, 0.5)


def around_the_head(config: TrainConfig) -> TrainConfig:
    """Returns a config with next to no network: its step is the head's, and quickly compiled.

    Embeddings, classes, loss, optimiser and mesh stay as they are.
    """
    data = dataclasses.replace(config.data, image_size=(16, 16), shift=0)
    model = dataclasses.replace(config.model, name="spherenet4", channels=(8,) * 4)
    return dataclasses.replace(config, data=data, model=model)


def planned_trainer(config: TrainConfig, num_classes: int, target: Target) -> Trainer:
    """The trainer that `train` would make on a target; its step can be compiled only.

    Losses with margins by class size are given one image of every class.

    Args:
      config: of the run.
      num_classes: identities.
      target: the devices.

    Returns:
      The trainer.

    Raises:
      ValueError: as `make_trainer`.
    """
    return make_trainer(
        config,
        num_classes,
        class_counts=np.ones(num_classes, np.int64),
        target=describe_devices(target),
    )


def abstract_batch(trainer: Trainer) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch, laid out as training lays it out."""
    config, where = trainer.config, batch_sharding(trainer.mesh)
    shape = (config.batch_size, *config.data.image_size, 3)
    return {
        "image": jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=where),
        "label": jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=where),
    }


@run_arithmetic()
def compile_step(trainer: Trainer) -> tuple[Any, Any]:
    """Returns the jaxpr of a trainer's step, and the step compiled."""
    traced = trainer.step.trace(trainer.like, abstract_batch(trainer))  # type: ignore[attr-defined]
    return traced.jaxpr, traced.lower().compile()


def bytes_of_a_device(tree: Any) -> int:
    """Returns what a device holds of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def memory_by_kind(trainer: Trainer, memory: Any) -> dict[str, int]:
    """The bytes of a device by what they hold.

    Args:
      trainer: the step's.
      memory: `memory_analysis` of the compiled step.

    Returns:
      Bytes by name; they add up to what the device needs.
    """
    like = trainer.like
    held = {
        "weights": bytes_of_a_device((like.params, like.model_state, like.ema_params)),
        "prototypes": bytes_of_a_device((like.prototypes, like.loss_state)),
        "optimiser": bytes_of_a_device(like.opt_state),
        "batch": bytes_of_a_device(abstract_batch(trainer)),
    }
    held["padding"] = max(memory.argument_size_in_bytes - sum(held.values()), 0)
    held["outputs"] = max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
    held["temporaries"] = memory.temp_size_in_bytes
    held["program"] = memory.generated_code_size_in_bytes
    return held


def updated_bytes(trainer: Trainer) -> float:
    """Returns the bytes of a device's state that a step must read and write at least once."""
    like, loss = trainer.like, trainer.config.loss
    rows = bytes_of_a_device((like.prototypes, like.opt_state["prototypes"]))
    drawn = loss.sample_rate if loss.sampling == "partial_fc" else 1.0
    others = {name: leaf for name, leaf in like.opt_state.items() if name != "prototypes"}
    return bytes_of_a_device((like.params, others)) + drawn * rows


def describe_step(config: TrainConfig, num_classes: int, target: Target) -> dict[str, Any]:
    """Compiles a step and says what is known of it.

    Args:
      config: of the run.
      num_classes: identities.
      target: the devices.

    Returns:
      Values that JSON can hold, among them "fits"; where the compiler itself refused for want of
      memory, what it said under "compiler", else bytes, FLOPs, what the devices send each other,
      and bounds on the time.

    Raises:
      ValueError: the config is not one that can be trained on the target.
    """
    versions = compiler_versions(target.chip.platform)
    trainer = planned_trainer(config, num_classes, target)
    chip, started = target.chip, time.perf_counter()
    usable = int(chip.memory * chip.share)
    said = {
        "target": target.name,
        "devices": target.devices,
        "mesh": dict(trainer.mesh.shape),
        "num_classes": num_classes,
        "batch_size": config.batch_size,
        "versions": versions,
        "device": chip.memory,
        "usable": usable,
    }
    try:
        jaxpr, compiled = compile_step(trainer)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return said | {"fits": False, "compiler": _first_lines(str(error))}
    memory = memory_by_kind(trainer, compiled.memory_analysis())
    total = sum(memory.values())
    flops = count_flops(jaxpr)
    collectives = find_collectives(compiled.as_text())
    a_device = sum(flops.values()) / target.devices
    return said | {
        "memory": memory,
        "total": total,
        "fits": total <= usable,
        "flops": flops,
        "images_a_second": {
            f"{share:.0%}": config.batch_size / (a_device / (share * chip.flops))
            for share in SHARES_OF_PEAK
        },
        "collectives": [dataclasses.asdict(collective) for collective in collectives],
        "sent": sum(collective.sent for collective in collectives),
        "seconds_at_least": {
            "arithmetic": a_device / chip.flops,
            "memory": 2 * updated_bytes(trainer) / chip.bandwidth,
            "wire": sum(collective.sent for collective in collectives) / chip.wire,
        },
        "seconds_to_compile": time.perf_counter() - started,
    }


def _first_lines(error: str) -> str:
    used = re.search(r"Used [\d.]+\w+ of [\d.]+\w+ \w+", error)
    return used[0] if used else error.splitlines()[0][:200]


def main() -> None:
    """Reads an order, prints what is known of its step."""
    order = json.load(sys.stdin)
    config = from_dict(TrainConfig, order["config"], where="plan")
    if order["head_alone"]:
        config = around_the_head(config)
    try:
        said = describe_step(config, order["num_classes"], find_target(order["target"]))
    except ValueError as error:
        said = {"error": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
