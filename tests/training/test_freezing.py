"""What is frozen stays to the bit, the head's rate is its own, and the head may go first."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from command import refused
from tiny_run import as_flags, tiny_config

from sphereface_jax.training.config import ModelConfig, OptimizerConfig, TrainConfig
from sphereface_jax.training.trainer import make_trainer

RATE = OptimizerConfig(learning_rate=0.05)
MODEL = ModelConfig(name="sfnet4_bn", embedding_dim=8, channels=(4, 4, 8, 8))


def learn(config: TrainConfig, steps: int):
    """The states before and after so many steps."""
    trainer = make_trainer(config, 6)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 24, 16, 3), np.uint8),
        "label": np.arange(8, dtype=np.int32) % 6,
    }
    state = trainer.init()
    for _ in range(steps):
        state, _ = trainer.step(state, batch)
    return jax.tree.map(np.asarray, trainer.init()), jax.tree.map(np.asarray, state)


def changed(before, after) -> dict[str, bool]:
    """Which leaves differ, by name."""
    pairs = zip(
        jax.tree_util.tree_flatten_with_path(before)[0], jax.tree.leaves(after), strict=True
    )
    return {
        ".".join(str(getattr(key, "key", key)) for key in path): not np.array_equal(old, new)
        for (path, old), new in pairs
    }


def test_what_is_frozen_stays_with_its_statistics(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, model=MODEL, optimizer=RATE, freeze=("stages.[01].*", "stages.2.norm.*")
    )
    before, after = learn(config, 2)
    for name, differs in changed(before.params, after.params).items():
        assert differs != name.startswith(("stages.0.", "stages.1.", "stages.2.norm.")), name
    for name, differs in changed(before.model_state, after.model_state).items():
        assert differs != name.startswith(("stages.0.", "stages.1.", "stages.2.norm.")), name
    assert any(changed(before.prototypes, after.prototypes).values())


def test_the_head_has_its_own_rate_and_may_go_first(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, optimizer=dataclasses.replace(RATE, head_first=2))
    before, after = learn(config, 2)
    assert not any(changed(before.params, after.params).values())
    momentum = [leaf for leaf in jax.tree.leaves(after.opt_state["params"]) if leaf.ndim]
    assert not any(leaf.any() for leaf in momentum)
    assert any(changed(*(learn(config, 3)[place].params for place in (0, 1))).values())
    faster = dataclasses.replace(config, optimizer=dataclasses.replace(RATE, head_rate=3.0))
    start, third = learn(faster, 1)
    plain = learn(dataclasses.replace(config, optimizer=RATE), 1)[1]
    jax.tree.map(np.testing.assert_array_equal, third.params, plain.params)
    np.testing.assert_allclose(
        third.prototypes - start.prototypes, 3 * (plain.prototypes - start.prototypes), atol=1e-6
    )


def test_a_pattern_of_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = as_flags(tiny_config(tmp_path / "run"))
    said = refused(capsys, "train", *flags, "--freeze", "layer1.*")
    assert "freeze: expected a pattern of the network's weights, such as embedding.bias" in said
    assert not (tmp_path / "run").exists()
