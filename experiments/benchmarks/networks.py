"""Embedding with every kind of network, against PyTorch and onnxruntime on the same weights.

    chrt -f 50 python -m experiments.benchmarks.networks

Ours is `FaceEmbedder.embed` on arrays; PyTorch's is the network as its authors wrote it, eager, in
channels-last and inference mode; onnxruntime's is its file as `torch.onnx.export` folds it. The
contestants run in turn, and a ratio is the median over the rounds. That all three return the same
embeddings is checked first. Needs the extras `onnx`, `parity` and `test`.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import rates
from experiments.import_export_lfw import open_session
from experiments.pages import RESULTS
from sphereface_jax.commands.import_weights import import_weights
from sphereface_jax.commands.weight_options import ImportOptions
from sphereface_jax.embedder import FaceEmbedder
from tests.helpers import torch_networks as peers

WIDE, SIZE, DIM = (64, 128, 256, 512), (112, 112), 512
PLAN = WIDE, DIM, (7, 7)
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "sphere20a": lambda: peers.Sphere20a(WIDE, DIM, (7, 6)),
    "sfnet20": lambda: peers.SFNet(20, *PLAN),
    "sfnet20_bn": lambda: peers.SFNet(20, *PLAN, norm=True),
    "iresnet18": lambda: peers.IResNet(18, *PLAN),
    "iresnet50": lambda: peers.IResNet(50, *PLAN),
    "iresnet100": lambda: peers.IResNet(100, *PLAN),
    "ir50": lambda: peers.AdaFaceIr(50, *PLAN),
    "mobilefacenet_classic": lambda: peers.XiaoccerMobileFaceNet(WIDE, 128, (7, 7)),
    "mobilefacenet": lambda: peers.MobileFaceNet(*PLAN),
    "mobilefacenet_large": lambda: peers.MobileFaceNet(*PLAN, scale=4, blocks=(2, 8, 12, 4)),
    "mobilefacenet_foamliu": lambda: peers.FoamliuMobileFaceNet(WIDE, 128, (7, 7)),
    "vit_t": lambda: peers.VisionTransformer(12, 256, DIM, SIZE),
    "vit_s": lambda: peers.VisionTransformer(12, 512, DIM, SIZE),
}
MOST_DIFFERENCE = 1e-4


def measure(arch: str, work: Path, *, count: int, rounds: int) -> dict[str, Any]:
    """Rates of the three on one network.

    Args:
      arch: of NETWORKS.
      work: an empty folder.
      count: of faces, all in one call.
      rounds: in each of which every contestant runs once.

    Raises:
      ValueError: the three do not return the same embeddings.
    """
    size = (112, 96) if arch == "sphere20a" else SIZE
    network = peers.randomized(NETWORKS[arch]()).eval().to(memory_format=torch.channels_last)
    torch.save(network.state_dict(), work / "net.pt")
    import_weights(
        ImportOptions(work / "net.pt", out=work / "run", arch=arch, image_size=size),
        console=Console(quiet=True),
    )
    embedder = FaceEmbedder.from_run(work / "run")
    data = embedder.run.config.data
    faces = np.random.default_rng(0).integers(0, 256, (count, *data.image_size, 3), np.uint8)
    ordered = faces if data.color_order == "rgb" else faces[..., ::-1]
    given = ((ordered - np.array(data.pixel_mean)) / np.array(data.pixel_divisor)).astype("float32")
    given = np.ascontiguousarray(given.transpose(0, 3, 1, 2))
    tensor = torch.from_numpy(given).to(memory_format=torch.channels_last)
    torch.onnx.export(
        network,
        (tensor[:1],),
        str(work / "net.onnx"),
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    session = open_session(work / "net.onnx")

    def here() -> np.ndarray:
        return embedder.embed(faces)

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return network(tensor).numpy()

    def in_onnxruntime() -> np.ndarray:
        return session.run(None, {"x": given})[0]

    contestants = {"here": here, "pytorch": in_torch, "onnxruntime": in_onnxruntime}
    found = {
        name: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for name, vectors in ((name, run()) for name, run in contestants.items())
    }
    difference = max(float(np.abs(found["here"] - theirs).max()) for theirs in found.values())
    if not difference <= MOST_DIFFERENCE:
        raise ValueError(
            f"{arch}: expected the same embeddings of all, they differ by {difference}"
        )

    def counted(run: Callable[[], np.ndarray]) -> Callable[[], int]:
        return lambda: len(run())

    measured = rates({name: counted(run) for name, run in contestants.items()}, rounds)
    clock = {name: values[:, 0] for name, values in measured.items()}
    return {
        "images_per_second": {name: float(np.median(rate)) for name, rate in clock.items()},
        "by_pytorch": float(np.median(clock["here"] / clock["pytorch"])),
        "by_onnxruntime": float(np.median(clock["here"] / clock["onnxruntime"])),
        "greatest_difference": difference,
    }


def main(
    networks: tuple[str, ...] = tuple(NETWORKS),
    count: int = 64,
    rounds: int = 5,
    out: Path = RESULTS / "networks.json",
) -> None:
    """Measures and stores.

    Args:
      networks: which.
      count: of faces, all in one call.
      rounds: of each.
      out: the results file.
    """
    machine, found = describe_machine(), {}
    for arch in networks:
        with tempfile.TemporaryDirectory() as folder:
            found[arch] = measure(arch, Path(folder), count=count, rounds=rounds)
        print(arch, found[arch], flush=True)
    write_results(
        out,
        {
            "benchmark": "networks",
            "count": count,
            "rounds": rounds,
            "networks": found,
            "machine": machine,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
