"""The losses in other people's code: their frameworks, and JAX's transformations."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LABELS, assert_close, problem
from on_devices import run_on_devices

from sphereface_jax import arcface_loss, sphereface_loss

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "in-other-frameworks.md"
PACKAGES = {"Flax Linen": "flax", "Equinox": "equinox", "Haiku": "haiku", "Keras 3": "keras"}


@pytest.mark.filterwarnings("default")  # the frameworks' own
@pytest.mark.parametrize("framework", PACKAGES)
def test_the_program_of_a_framework_learns(framework: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    pytest.importorskip(PACKAGES[framework])
    introduction, *sections = PAGE.read_text("utf-8").split("\n## ")
    (section,) = [text for text in sections if text.startswith(framework + "\n")]
    names: dict = {}
    for text in (introduction, section):
        for code in re.findall(r"^```py\n(.*?)^```$", text, re.S | re.M):
            exec(compile(code, str(PAGE), "exec"), names)
    assert float(names["last"]) < 0.7 * float(names["first"])


@pytest.mark.parametrize("head", [{}, {"class_block": 4}])
def test_a_loss_inside_scan_and_checkpoint(head: dict) -> None:
    data = problem("sphereface")

    def steps(x: jax.Array) -> jax.Array:
        def step(total: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
            loss = jax.checkpoint(lambda v: sphereface_loss(v, data.prototypes, LABELS, **head))
            return total + loss(x * scale).sum(), None

        return jax.lax.scan(step, jnp.float32(0), jnp.array([1.0, 2.0]))[0]

    def twice(x: jax.Array) -> jax.Array:
        return sum(sphereface_loss(x * s, data.prototypes, LABELS).sum() for s in (1.0, 2.0))

    expected = np.asarray(jax.grad(twice)(data.x))
    assert_close(jax.jit(jax.grad(steps))(data.x), expected, 1e-5)


def test_a_loss_inside_a_shard_map_of_one_s_own() -> None:
    run_on_devices("a_loss_inside_a_shard_map_of_one_s_own")


def test_a_hyper_parameter_may_be_vmapped_over() -> None:
    data = problem("arcface")
    margins = jnp.array([0.1, 0.3, 0.5])

    def loss(margin: jax.Array) -> jax.Array:
        return arcface_loss(data.x, data.prototypes, LABELS, margin=margin, class_block=4)

    for margin, losses in zip(margins, jax.vmap(loss)(margins), strict=True):
        expected = arcface_loss(data.x, data.prototypes, LABELS, margin=float(margin))
        assert_close(losses, np.asarray(expected), 1e-5)
