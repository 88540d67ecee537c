"""Shared set-up: CPU only, a persistent compilation cache, and where the shared faces are."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared faces are not here: {SHARED_DATA}")
    return SHARED_DATA
