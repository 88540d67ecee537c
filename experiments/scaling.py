"""How memory, bytes sent and step time grow: writes docs/scaling.md and docs/images/scaling.svg.

    python -m experiments.scaling

The formulas are below, in `Layout`; the constants are measured on one machine by
`experiments.benchmarks.scaling` and read from experiments/results/scaling.json. The page first
holds the formulas against what XLA says of eight devices, then follows them to 4,096. The last
panel's machine is `WHAT_IF`: round numbers, of no product; put yours in their place.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import plots
from experiments.pages import DOCS, HERE, RESULTS, table, write
from sphereface_jax import LOSSES
from sphereface_jax.training.config import LossConfig
from sphereface_jax.training.objective import Objective

DIM = 512
IMAGES = 64  # a device and step
CLASSES = (10**4, 10**5, 10**6, 10**7, 10**8)
DEVICES = tuple(4**power for power in range(7))
MOST_MODEL = 256  # prototypes are padded to a multiple of this
MULTIPLICATIONS = 1.75e9  # of SphereNet-20 an image, forward
CHECKED = (
    *("data × model", "ZeRO-1", "state and batch, MB", "formula"),
    *("temporaries, MB", "formula", "sent, MB", "formula"),
)
CONSTANTS = ("t_image", "t_similarity", "t_weight", "t_byte, loopback", "t_collective, loopback")
EXTRAPOLATED = ("devices", "identities", "M", "memory, GiB", "sent a step, GB", "step, s")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Seconds that one device takes, and one ring of them.

    Attributes:
      image: forward, backward and update of the network, an image.
      similarity: of an embedding and a prototype, forward and both gradients.
      weight: update of one weight of a prototype.
      byte: to send a byte to the next device of a ring.
      collective: to start one, a stage of a tree.
    """

    image: float
    similarity: float
    weight: float
    byte: float
    collective: float


def measured(results: dict[str, Any]) -> Machine:
    """The machine that was measured."""
    names = ("image", "similarity", "weight", "byte", "collective")
    articles = ("an", "a", "a", "a", "a")
    return Machine(
        *(results[f"seconds_{a}_{name}"] for a, name in zip(articles, names, strict=True))
    )


def assumed(
    *, flops: float, memory_bandwidth: float, wire_bandwidth: float, latency: float
) -> Machine:
    """A machine that attains so many floating-point operations and bytes a second."""
    return Machine(
        image=6 * MULTIPLICATIONS / flops,  # two operations; forward and two gradients
        similarity=8 * DIM / flops,  # forward, once more in the backward walk, two gradients
        weight=20 / memory_bandwidth,  # weight, gradient, velocity read; two of them written
        byte=1 / wire_bandwidth,
        collective=latency,
    )


WHAT_IF = {"flops": 1e14, "memory_bandwidth": 1e12, "wire_bandwidth": 1e10, "latency": 1e-5}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices laid out as data × model, and what they train.

    Attributes:
      data: devices along the batch.
      model: devices that share the prototypes.
      classes: C, padded.
      images: a device and step.
      weights: of the network.
      shard_optimizer: whether the network's velocity is cut along data.
    """

    data: int
    model: int
    classes: int
    images: int
    weights: int
    shard_optimizer: bool = False

    @property
    def prototypes(self) -> float:
        """Weights of prototypes on a device."""
        return self.classes * DIM / self.model

    def state_bytes(self) -> float:
        """Weights and velocity on a device."""
        velocity = self.weights / (self.data if self.shard_optimizer else 1)
        return 4 * (self.weights + velocity + 2 * self.prototypes)

    def gradient_bytes(self) -> float:
        """The gradient on a device."""
        return 4 * (self.weights + self.prototypes)

    def memory(self, activations: float) -> float:
        """Bytes on a device: state, gradient, and the activations of its images."""
        return self.state_bytes() + self.gradient_bytes() + self.images * activations

    def sent(self) -> dict[str, float]:
        """Bytes that a device sends in a step, all collectives being rings."""
        data, model = self.data, self.model
        embeddings = 4 * self.images * model * DIM
        sent = {
            "network": all_reduce(4 * self.weights, data * model),
            "prototypes": all_reduce(4 * self.prototypes, data),
            "embeddings": all_gather(embeddings, model) + all_reduce(embeddings, model),
        }
        if self.shard_optimizer:
            sent["updated weights"] = all_gather(4 * self.weights, data)
        return sent

    def seconds(self, machine: Machine) -> float:
        """Of a step in which nothing is sent while something is computed."""
        stages = sum(
            count * math.log2(devices)
            for count, devices in [
                (1, self.data * self.model),  # the network's gradient
                (1, self.data),  # the prototypes' gradient
                (5, self.model),  # embeddings, labels; two sums; the embeddings' gradient
            ]
        )
        return (
            self.images * machine.image
            + self.images * self.classes * machine.similarity
            + self.prototypes * machine.weight
            + sum(self.sent().values()) * machine.byte
            + stages * machine.collective
        )


def all_reduce(size: float, devices: int) -> float:
    """Bytes that each of a ring's devices sends to sum up arrays of a size."""
    return 2 * size * (devices - 1) / devices


def all_gather(size: float, devices: int) -> float:
    """Bytes that each of a ring's devices sends until all hold what has a size in all."""
    return size * (devices - 1) / devices


def quickest(devices: int, classes: int, weights: int, machine: Machine) -> Layout:
    """The layout with the shortest step."""
    layouts = [
        Layout(devices // model, model, classes, IMAGES, weights)
        for model in (2**power for power in range(9))
        if model <= min(devices, MOST_MODEL)
    ]
    return min(layouts, key=lambda layout: layout.seconds(machine))


def sent_by_program(collectives: dict[str, dict[str, int]]) -> float:
    """Bytes that a device sends in a compiled step, all collectives being rings."""
    rule = {"all-reduce": all_reduce, "all-gather": all_gather}
    return sum(
        rule[kind.split()[0]](found["bytes"], int(kind.split()[-1]))
        for kind, found in collectives.items()
    )


def compiled_layout(found: dict[str, Any], results: dict[str, Any]) -> Layout:
    """The layout that one of the compiled steps has."""
    return Layout(
        data=found["data"],
        model=found["model"],
        classes=-(-results["num_classes"] // 256) * 256,
        images=found["images_a_device"],
        weights=results["weights"],
        shard_optimizer=found["shard_optimizer"],
    )


def activation_bytes(results: dict[str, Any]) -> float:
    """What an image more costs a device, from two compiled steps that differ in images alone."""
    few, *_, many = results["layouts"]
    images = many["images_a_device"] - few["images_a_device"]
    return (many["temporaries"] - few["temporaries"]) / images


def check_row(found: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """A compiled step beside the formulas."""
    layout = compiled_layout(found, results)
    numbers = [
        found["arguments"],
        layout.state_bytes(),
        found["temporaries"],
        layout.gradient_bytes() + layout.images * activation_bytes(results),
        sent_by_program(found["collectives"]),
        sum(layout.sent().values()),
    ]
    cells = [f"{layout.data} × {layout.model}", "yes" if layout.shard_optimizer else "no"]
    return cells + [f"{number / 1e6:,.1f}" for number in numbers]


def extrapolated_row(devices: int, classes: int, results: dict[str, Any]) -> list[str]:
    """A point of the last panel."""
    machine = assumed(**WHAT_IF)
    layout = quickest(devices, classes, results["weights"], machine)
    memory = layout.memory(activation_bytes(results)) / 2**30
    sent = sum(layout.sent().values()) / 1e9
    return [
        f"{devices:,}",
        f"10^{round(math.log10(classes))}",
        f"{layout.model}",
        f"{memory:,.1f}",
        f"{sent:.2f}",
        f"{layout.seconds(machine):.3g}",
    ]


def page(results: dict[str, Any]) -> str:
    """The text of docs/scaling.md."""
    few, *_, many = results["layouts"]
    whole = (name for name in LOSSES if Objective(LossConfig(name), 4).looks_at_whole_batch)
    machine, constants = results["machine"], dataclasses.astuple(measured(results))
    return (
        (HERE / "scaling_page.md")
        .read_text(encoding="utf-8")
        .format(
            dim=DIM,
            whole_batch=", ".join(f"`{name}`" for name in whole),
            weights=results["weights"],
            classes=results["num_classes"],
            devices=few["data"] * few["model"],
            checks=table(CHECKED, (check_row(found, results) for found in results["layouts"][:-1])),
            few=few["images_a_device"],
            many=many["images_a_device"],
            activations=activation_bytes(results) / 1e6,
            images=IMAGES,
            cores=machine["cores"],
            processor=machine["processor"],
            load=machine["load_before"],
            constants=table(CONSTANTS, [[f"{value:.3g} s" for value in constants]]),
            **WHAT_IF,
            extrapolated=table(
                EXTRAPOLATED,
                (
                    extrapolated_row(devices, classes, results)
                    for classes in CLASSES
                    for devices in (1, 64, 4096)
                ),
            ),
            network_gb=8 * results["weights"] / 1e9,
        )
    )


def draw(path: Path, results: dict[str, Any]) -> None:
    """Plots memory, bytes and seconds over the number of devices."""
    here, there = measured(results), assumed(**WHAT_IF)
    activations = activation_bytes(results)
    panels = [
        ("memory a device, GiB", there, lambda layout: layout.memory(activations) / 2**30),
        ("sent by a device and step, GB", there, lambda layout: sum(layout.sent().values()) / 1e9),
        ("step, s: devices like this machine", here, lambda layout: layout.seconds(here)),
        ("step, s: the accelerator supposed", there, lambda layout: layout.seconds(there)),
    ]
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (title, machine, value) in zip(axes.flat, panels, strict=True):
        for classes in CLASSES:
            layouts = [quickest(n, classes, results["weights"], machine) for n in DEVICES]
            label = f"$10^{round(math.log10(classes))}$"
            axis.plot(DEVICES, [value(layout) for layout in layouts], ".-", label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xscale("log", base=2)
        if value(layouts[0]):  # one device sends nothing, which a logarithm cannot show
            axis.set_yscale("log")
        axis.set_xticks(DEVICES, [f"{n:,}" for n in DEVICES])
    axes.flat[0].legend(title="identities", fontsize=8)
    figure.supxlabel("devices")
    plots.save(figure, path)


def main() -> None:
    """Writes the page and its figure."""
    results = json.loads((RESULTS / "scaling.json").read_text())
    draw(DOCS / "images" / "scaling.svg", results)
    write("scaling.md", page(results))


if __name__ == "__main__":
    main()
