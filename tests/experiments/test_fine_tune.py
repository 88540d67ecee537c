"""The experiment that fine-tunes a public network: its loss by hand, and all of it in small."""

from pathlib import Path

import numpy as np
import pytest
from command import call
from imported_run import CHANNELS, DIM, random_weights

from experiments.benchmark_lists import draw_people, write_pairs
from experiments.fine_tune import Options, loss_among, report, run
from sphereface_jax.interop.safetensors_file import safetensors_bytes

SIZE = (24, 16)


def test_an_image_is_not_its_own_prototype() -> None:
    # Two people of two images; the other image is the prototype, so a's cosine to its own is 0.6.
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 2], [0, 0, 5]])
    loss = loss_among(vectors, np.array([4, 4, 7, 7]), scale=2.0)
    first, second = np.log(1 + np.exp(-1.2)), np.log(1 + np.exp(-2.0))
    np.testing.assert_allclose(loss, (first + second) / 2, rtol=1e-12)


def test_who_has_one_image_is_only_a_prototype() -> None:
    vectors = np.array([[1.0, 0], [1, 0], [0, 1]])
    loss = loss_among(vectors, np.array([0, 0, 1]), scale=2.0)
    np.testing.assert_allclose(loss, np.log(1 + np.exp(-2.0)), rtol=1e-12)


def test_before_and_after(tmp_path: Path) -> None:
    draw_people(tmp_path / "faces", 50, 3, SIZE, 0)
    draw_people(tmp_path / "lfw", 20, 2, SIZE, 100)
    write_pairs(tmp_path / "pairs.txt", 100)
    sizes = {"channels": CHANNELS, "embedding_dim": DIM}
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(safetensors_bytes(random_weights("spherenet4", SIZE, **sizes)))
    flags = ["--channels", *CHANNELS, "--embedding-dim", DIM, "--image-size", *SIZE]
    runs = tmp_path / "runs"
    assert call("import", weights, "--arch", "spherenet4", "--out", runs / "before", *flags) == 0
    options = Options(
        weights,
        str(tmp_path / "faces"),
        tmp_path / "pairs.txt",
        tmp_path / "lfw",
        steps=2,
        batch_size=8,
        head_first=0,
        held_out_pairs=50,
        runs=runs,
        out=tmp_path / "results.json",
    )
    results = run(options)
    assert results["held_out_people"] == 10
    before, after = results["before"], results["after"]
    assert before["held_out_loss"] != after["held_out_loss"] > 0
    assert f"{100 * after['lfw']['accuracy_10_fold']:.2f} %" in report(results)
    with pytest.raises(ValueError, match="expected no results yet"):
        run(options)
