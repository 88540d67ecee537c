"""A network as a folder in Hugging Face's layout: the same embeddings, and no code run."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from imported_run import make_run

from sphereface_jax.embedder import FaceEmbedder

SIZE = (48, 48)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("pretrained"), "sfnet4_bn", SIZE)


def test_a_folder_gives_the_same_embeddings(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert call("export", run, "--hf", folder) == 0
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    face = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    expected = FaceEmbedder.from_run(run).embed(face)
    np.testing.assert_array_equal(FaceEmbedder.from_pretrained(folder).embed(face), expected)
    imported = tmp_path / "again"
    assert call("import", folder, "--out", imported) == 0
    np.testing.assert_array_equal(FaceEmbedder.from_run(imported).embed(face), expected)
    front = (folder / "README.md").read_text().split("---\n")[1]
    assert 'library_name: "sphereface_jax"' in front


def test_it_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hub"
    assert call("export", run, "--hf", folder) == 0
    capsys.readouterr()
    assert "does not exist yet" in refused(capsys, "export", run, "--hf", folder)
    config = json.loads((folder / "config.json").read_text())
    for changes, said in (
        ({"model_type": "bert"}, "model_type"),
        ({"name": "sfnet20_bn"}, "as sfnet20_bn, expected the"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "unknown field 'auto_map'"),
        ({"image_size": [0, 0]}, "image_size"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match=said):
            FaceEmbedder.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        FaceEmbedder.from_pretrained(folder)
