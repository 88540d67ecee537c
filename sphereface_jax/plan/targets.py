"""The devices that a step can be compiled for, each described from a public source.

A target is a chip and a number of them: `h100x8`, `v5e-256`. GPUs of one host are described to the
compiler by their properties, TPUs by the name of a topology that libtpu knows. Nothing here is
needed to train, and nothing of JAX is imported before a device is asked for.
"""

import contextlib
import glob
import importlib.metadata
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Chip:
    """A device, by its maker's published numbers.

    Attributes:
      name: as in a target.
      platform: "cuda" or "tpu".
      memory: bytes that it has.
      share: of its memory that JAX uses unless told otherwise.
      flops: peak in a second, dense, on bfloat16.
      bandwidth: of its memory, bytes per second.
      wire: bytes per second that it can send to the others of its host or slice, one way.
      sources: where the numbers stand.
      gpu: what XLA's GPU compiler is told; empty for a TPU.
    """

    name: str
    platform: str
    memory: int
    share: float
    flops: float
    bandwidth: float
    wire: float
    sources: tuple[str, ...]
    gpu: str = ""


@dataclass(frozen=True)
class Target:
    """A chip, how many, and what the compiler calls them."""

    name: str
    chip: Chip
    devices: int
    topology: str


_XLA = "https://github.com/openxla/xla/blob/main/xla/backends/gpu/target_config/specs/"
_NEMO = "https://github.com/NVIDIA-NeMo/RL/blob/main/nemo_rl/utils/flops_tracker.py"
_MLPERF = "https://github.com/mlcommons/inference_results_"
# https://docs.jax.dev/en/latest/gpu_memory_allocation.html: 75 % of a GPU's memory is taken.
_GPU_SHARE = 0.75


def _gpu(
    description: str, *, cores: int, shared: int, optin: int, clock: float, fpus: int, l2: int,
    memory: int, bandwidth: float, capability: tuple[int, int],
) -> str:  # fmt: skip
    """XLA's GpuTargetConfigProto as text."""
    major, minor = capability
    return (
        "gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 "
        f"shared_memory_per_block: 49152 shared_memory_per_core: {shared} "
        f"threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {fpus} "
        "block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 "
        f"memory_bandwidth: {int(bandwidth)} l2_cache_size: {l2} clock_rate_ghz: {clock} "
        f"device_memory_size: {memory} shared_memory_per_block_optin: {optin} "
        f"cuda_compute_capability {{ major: {major} minor: {minor} }} "
        "registers_per_core_limit: 65536 registers_per_block_limit: 65536 } "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } '
        f'runtime_version {{ major: 13 }} device_description_str: "{description}"'
    )


_HOPPER: dict[str, Any] = {
    "cores": 132, "shared": 233472, "optin": 232448, "clock": 1.98, "fpus": 128, "l2": 52428800,
    "capability": (9, 0),
}  # fmt: skip
_AMPERE: dict[str, Any] = {
    "cores": 108, "shared": 167936, "optin": 166912, "clock": 1.41, "fpus": 64, "l2": 41943040,
    "capability": (8, 0),
}  # fmt: skip


def _nvidia(
    name: str,
    description: str,
    *,
    memory: int,
    flops: float,
    bandwidth: float,
    wire: float,
    sources: tuple[str, ...],
    family: dict[str, Any],
) -> Chip:
    text = _gpu(description, memory=memory, bandwidth=bandwidth, **family)
    return Chip(name, "cuda", memory, _GPU_SHARE, flops, bandwidth, wire, sources, text)


def _tpu(
    name: str, page: str, *, gigabytes: int, flops: float, bandwidth: float, wire: float
) -> Chip:
    return Chip(name, "tpu", gigabytes * 2**30, 1.0, flops, bandwidth, wire, (page,))


# NVIDIA's peaks are half of those with sparsity. Wires are published both ways together; half of
# that can be sent.
CHIPS = {
    chip.name: chip
    for chip in (
        _nvidia(
            "h100", "NVIDIA H100 80GB HBM3", memory=84942979072, flops=1979e12 / 2,
            bandwidth=3352.32e9, wire=900e9 / 2, family=_HOPPER,
            sources=(
                _XLA + "h100_sxm.txtpb", _NEMO,
                _MLPERF + "v3.1/blob/main/closed/NVIDIA/systems/DGX-H100_H100-SXM-80GBx8_TRT.json",
            ),
        ),
        _nvidia(
            "a100", "NVIDIA A100-SXM4-80GB", memory=85100068864, flops=624e12 / 2,
            bandwidth=2039.04e9, wire=600e9 / 2, family=_AMPERE,
            sources=(
                _XLA + "a100_sxm_80.txtpb", _NEMO,
                "https://glennklockwood.com/garden/processors/A100",
            ),
        ),
        _nvidia(
            "h200", "NVIDIA H200 141GB HBM3e", memory=151397597184, flops=1979e12 / 2,
            bandwidth=4800e9, wire=900e9 / 2, family=_HOPPER,
            sources=(
                _XLA + "h200.txtpb", _NEMO,
                _MLPERF + "v4.1/blob/main/closed/NVIDIA/systems/H200-SXM-141GBx8_TRT_MaxQ.json",
            ),
        ),
        _tpu(
            "v5e", "https://cloud.google.com/tpu/docs/v5e", gigabytes=16, flops=197e12,
            bandwidth=819e9, wire=400e9 / 2,
        ),
        _tpu(
            "v5p", "https://docs.cloud.google.com/tpu/docs/v5p-training", gigabytes=95,
            flops=459e12, bandwidth=2765e9, wire=1200e9 / 2,
        ),
        _tpu(
            "v6e", "https://docs.cloud.google.com/tpu/docs/v6e", gigabytes=32, flops=918e12,
            bandwidth=1600e9, wire=800e9 / 2,
        ),
    )
}  # fmt: skip

_SQUARES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")


def _chips_of(topology: str) -> int:
    return math.prod(map(int, topology.split("x")))


def _targets() -> dict[str, Target]:
    found = [
        Target(f"{name}x{count}", CHIPS[name], count, f"1x1x{count}")
        for name in ("h100", "a100", "h200")
        for count in (1, 2, 4, 8)
    ]
    for name, shapes, cores in (("v5e", _SQUARES, 1), ("v5p", _CUBES, 2), ("v6e", _SQUARES, 1)):
        # Google counts v5p's TensorCores, of which a chip has two: v5p-8 has four chips.
        found += [
            Target(f"{name}-{cores * _chips_of(s)}", CHIPS[name], _chips_of(s), f"{name}:{s}")
            for s in shapes
        ]
    return {target.name: target for target in found}


TARGETS = _targets()
"""Every target by its name."""

COMPILERS = {
    "cuda": {"jax-cuda13-plugin": {"0.10.2": "0.10.2"}, "jax-cuda13-pjrt": {"0.10.2": "0.10.2"}},
    "tpu": {"libtpu": {"0.10.2": "0.0.42.1"}},
}
"""The packages of a platform's compiler, and which of their versions went with which jax."""


def find_target(name: str) -> Target:
    """Returns the target of a name.

    Raises:
      ValueError: no target has this name.

    Example:
      >>> find_target("v5e-256").topology
      'v5e:16x16'
    """
    if name not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]


def compiler_versions(platform: str) -> dict[str, str]:
    """Returns the versions of jax and of a platform's compiler.

    Raises:
      ValueError: the compiler is not installed, or is not the one that goes with this jax.
    """
    jax_version = importlib.metadata.version("jax")
    found = {"jax": jax_version}
    for package, goes_with in COMPILERS[platform].items():
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise ValueError(
                f"plan: expected the package {package}, the {platform} compiler, which is not "
                "installed; `pip install '.[plan]'` in the folder of this project brings it"
            ) from None
        # The CUDA plugin is numbered as jax is; libtpu is not, and jax pins it.
        expected = goes_with.get(jax_version, jax_version if platform == "cuda" else None)
        if expected not in (None, found[package]):
            raise ValueError(
                f"plan: expected {package} {expected} beside jax {jax_version}, got "
                f"{found[package]}; `pip install {package}=={expected}`"
            )
    return found


def describe_devices(target: Target) -> "Sequence[jax.Device]":
    """Returns a target's devices, none of which is here, for `make_trainer`."""
    from jax.experimental import topologies

    if target.chip.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=target.topology).devices
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name="any",
        topology=target.topology,
        target_config=target.chip.gpu,
    ).devices


ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second process that compiles is refused
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Of a process that compiles; without the TPU_ ones libtpu looks for a metadata server."""


def keep_compilers_out() -> None:
    """Keeps JAX from trying the compilers of `plan` as devices where there is no such device.

    A GPU's or a TPU's plugin that finds none says so at length. Nothing is changed where a device
    file of either is there, where JAX_PLATFORMS is set, or where no such plugin is installed.
    """
    import jax

    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    if platforms or glob.glob("/dev/nvidia*") or glob.glob("/dev/accel*"):
        return
    if glob.glob("/dev/vfio/*") or glob.glob("/dev/dxg"):
        return
    installed = False
    with contextlib.suppress(ModuleNotFoundError):
        installed = importlib.util.find_spec("jax_plugins.xla_cuda13") is not None
    if installed or importlib.util.find_spec("libtpu") is not None:
        jax.config.update("jax_platforms", "cpu")
