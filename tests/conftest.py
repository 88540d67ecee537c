"""Shared set-up: CPU only, quick compilation, a cache of it, and where the shared faces are."""

import dataclasses
import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The programs are small and run once: optimizing their code takes longer than it saves. So does the
# newer of two generators of code for fusions: 2.5 times as long as the older, which JAX 0.12 lacks.
# What XLA makes of a program, its fusions and layouts, stays as users have it; `make notebook`
# compiles as they do.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
)
os.environ["XLA_FLAGS"] += (
    " --xla_cpu_use_fusion_emitters=false"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else ""
)

import jax
import pytest

if TYPE_CHECKING:
    from sphereface_jax.training.config import TrainConfig

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("SPHEREFACE_DATA", REPOSITORY.parent / "shared" / "data"))
"""Real faces, which no clone has: the tests that need them skip without."""

jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real faces at {SHARED_DATA}; SPHEREFACE_DATA names another folder")
    return SHARED_DATA


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> "TrainConfig":
    """A finished run with checkpoints of steps 4, 8 and 12."""
    from rich.console import Console
    from tiny_run import tiny_config

    from sphereface_jax.training.loop import train

    config = tiny_config(tmp_path_factory.mktemp("undisturbed") / "run")
    train(config, console=Console(quiet=True))
    return config


@pytest.fixture
def copy(undisturbed: "TrainConfig", tmp_path: Path) -> "TrainConfig":
    """The same run, to damage; without its result, so that it would go on."""
    shutil.copytree(undisturbed.out, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return dataclasses.replace(undisturbed, out=tmp_path / "run")
