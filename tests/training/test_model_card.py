"""Every run has a model card that says what the run knows, and nothing that it does not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from command import call
from faces_on_disk import make_face, write_image
from flax import nnx
from tiny_run import quiet, tiny_config

from sphereface_jax.data.files import write_json
from sphereface_jax.evaluation.geometry_measures import embedding_geometry
from sphereface_jax.evaluation.identification import identification
from sphereface_jax.evaluation.templates import Templates, ijb_1n, ijb_11, pool_templates
from sphereface_jax.interop.safetensors_file import safetensors_bytes
from sphereface_jax.interop.weights import state_dict
from sphereface_jax.models import MODELS
from sphereface_jax.training.config import to_dict
from sphereface_jax.training.loop import train
from sphereface_jax.training.model_card import store_evaluation, write_model_card


def card(run: Path) -> str:
    return (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_trained_run_says_its_data_loss_and_results(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", steps=1)
    data = dataclasses.replace(config.data, license="CC0 (drawn)")
    train(dataclasses.replace(config, data=data), console=quiet())
    text = card(config.out)
    assert "6 drawn identities" in text
    assert "as declared: CC0 (drawn)." in text
    assert "Loss `sphereface` (its defaults)" in text
    assert "None: the run has not been evaluated." in text
    assert "skin colour" in text
    numbers = {"accuracy_10_fold": 0.875, "auc": 0.9, "equal_error_rate": 0.2, "input": "pairs.txt"}
    store_evaluation(config.out, "../pairs.txt", {"protocols": {"lfw_authors": numbers}})
    write_model_card(config.out)
    row = "| lfw_authors | pairs.txt | accuracy 87.50%; AUC 0.9000; EER 20.00% |"
    assert row in card(config.out)
    assert [path.parent.name for path in tmp_path.rglob("*pairs.txt.json")] == ["evaluations"]


def test_evaluate_puts_its_numbers_on_the_card(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", steps=1)
    train(config, console=quiet())
    lines = ["2\t1"]
    for fold in range(2):
        first, second = f"A{fold}", f"B{fold}"
        for index, name in enumerate((first, second)):
            for number in (1, 2):
                face = make_face(10 * fold + index, 24, 16)
                write_image(tmp_path / "faces" / name / f"{name}_000{number}.png", face)
        lines += [f"{first}\t1\t2", f"{first}\t1\t{second}\t1"]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n")
    images = tmp_path / "faces"
    assert call("evaluate", config.out, "--pairs", pairs, "--images", images) == 0
    text = card(config.out)
    assert "| lfw_authors | pairs.txt | accuracy " in text
    assert text.count("* optimistic: ") == text.count("| lfw_opensphere |") == 1
    assert "measured on pairs.txt" in text
    assert list((config.out / "evaluations").glob("pairs.txt.json"))


UNIT = np.eye(6).repeat(2, axis=0) + 0.1
PEOPLE = np.arange(6).repeat(2)


def templates() -> Templates:
    return pool_templates(UNIT, np.arange(12), np.zeros(12, int))


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (
            lambda: identification(
                *(UNIT[::2], PEOPLE[::2], UNIT[1:8:2], PEOPLE[1:8:2]),
                fars=[1e-1],
                dir_fars=[0.5, 1e-2],
            ),
            "rank 1 100.00%; rank 5 100.00%; rank 10 100.00%; rank 20 100.00%; "
            "TAR at 1e-1 100.0%; DIR at 5e-1 100.0%; searches 4",
        ),
        (
            lambda: ijb_11(
                *(templates(), np.arange(0, 11), np.arange(1, 12), np.arange(11) % 2 == 0),
                fars=[0.2, 1e-2],
            ),
            "AUC 1.0000; EER 0.00%; TAR at 2e-1 100.0%; 3 probes",
        ),
        (
            lambda: ijb_1n(
                templates(),
                (np.arange(0, 12, 2), PEOPLE[::2]),
                [(np.arange(1, 8, 2), PEOPLE[1:8:2]), (np.arange(9, 12, 2), PEOPLE[9::2])],
            ),
            "rank 1 100.00%",
        ),
        (lambda: embedding_geometry(UNIT, PEOPLE), "angular Fisher 0.0000; to own mean 0.0°"),
    ],
    ids=["identification", "template verification", "template identification", "geometry"],
)
def test_every_kind_of_protocol_has_numbers_on_the_card(measure, said: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", to_dict(tiny_config(tmp_path)))
    numbers = {**measure().to_json(), "input": "people", "probes_left_out": 3}
    store_evaluation(tmp_path, "people", {"protocols": {"it": numbers}})
    write_model_card(tmp_path)
    (row,) = [line for line in card(tmp_path).splitlines() if line.startswith("| it | people |")]
    assert said in row
    assert "; 3 probes left out | evaluations/people.json |" in row


def test_an_imported_run_claims_no_data(tmp_path: Path) -> None:
    sizes = {"channels": (2, 2, 4, 4), "embedding_dim": 3, "image_size": (16, 16)}
    weights, run = tmp_path / "found.safetensors", tmp_path / "run"
    tensors = state_dict(MODELS["sfnet4"](**sizes, rngs=nnx.Rngs(0)))
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    weights.write_bytes(safetensors_bytes(tensors))
    flags = ["--channels", 2, 2, 4, 4, "--embedding-dim", 3, "--image-size", 16, 16]
    assert call("import", weights, "--arch", "sfnet4", "--out", run, *flags) == 0
    text = card(run)
    assert "Unknown: the weights were imported." in text
    assert "imported from found.safetensors (SHA-256 " in text
    assert "as declared: not declared." in text
