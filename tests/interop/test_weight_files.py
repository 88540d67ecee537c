"""Files of weights: what is read, and what is refused in one line with nothing written."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from command import call, refused
from flax import nnx

from sphereface_jax.interop.safetensors_file import read_safetensors, safetensors_bytes
from sphereface_jax.interop.tensor_files import read_tensors, without_wrappers
from sphereface_jax.interop.torch_file import read_torch_file, torch_file_bytes
from sphereface_jax.interop.weights import state_dict
from sphereface_jax.models import MODELS

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.half": np.ones((2,), jnp.bfloat16),
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.float16),
}
SMALL = {"channels": (2, 2, 4, 4), "embedding_dim": 3, "image_size": (16, 16)}
FLAGS = ["--channels", 2, 2, 4, 4, "--embedding-dim", 3, "--image-size", 16, 16]


def assert_same(ours: dict, theirs: dict) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        np.testing.assert_array_equal(ours[name], tensor)


@pytest.mark.parametrize(
    ("encode", "decode"),
    [(safetensors_bytes, read_safetensors), (torch_file_bytes, read_torch_file)],
)
def test_round_trip(encode, decode, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    tensors = TENSORS | {"sliced": np.arange(6, dtype=np.int16).reshape(2, 3).T[1:]}
    path.write_bytes(encode(tensors))
    assert_same(decode(path), tensors)


def test_pytorch_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
    path = tmp_path / "weights.pt"
    path.write_bytes(torch_file_bytes(TENSORS))
    theirs = torch.load(path, weights_only=True)
    assert list(theirs) == list(TENSORS)
    np.testing.assert_array_equal(theirs["a"].numpy(), TENSORS["a"])
    assert theirs["b.half"].dtype == torch.bfloat16
    assert theirs["count"].item() == 7


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def zip_of(path: Path, program: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        for name, content in entries.items():
            archive.writestr(f"x/data/{name}", content)
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_code_is_refused_and_not_run(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    witness, path = tmp_path / "ran", tmp_path / "evil.pth"
    program = pickle.dumps({"weight": Evil(witness)}, protocol=2)
    path.write_bytes(program)
    if kind == "zip":
        zip_of(path, program)
    if kind == "legacy":
        parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        header = b"".join(pickle.dumps(part, protocol=2) for part in parts)
        path.write_bytes(header + program + pickle.dumps([], protocol=2))
    said = refused(capsys, "import", path, "--arch", "sfnet4", "--out", tmp_path / "run")
    assert str(path) in said
    assert "mkdir, which is never run" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pth"]


def hostile_tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A pickle of one tensor over a storage of four float32."""
    whole = torch_file_bytes({"w": np.zeros(4, np.float32)})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        program = archive.read("weights/data.pkl")

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    old = b"J" + struct.pack("<i", 0) + numbers((4,)) + numbers((1,))
    assert old in program
    return program.replace(
        old, b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(strides)
    )


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(1, (4,), (1,)), (0, (2, 3), (3, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (9, 9), (0, 0))],
)
def test_a_tensor_beyond_its_storage_is_refused(offset, shape, strides, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.pt", hostile_tensor(offset, shape, strides), **{"0": bytes(16)})
    with pytest.raises(ValueError, match=r"beyond its storage|a malformed tensor record"):
        read_torch_file(path)


def test_a_pickle_cannot_ask_for_all_memory(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.pt", b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_torch_file(path) == {}


def test_a_tensor_cannot_be_altered_once_it_is_checked(tmp_path: Path) -> None:
    made, strides = b"ccollections\nOrderedDict\n)RtR", b"(" + b"J" + struct.pack("<i", -9) + b"t"
    program = hostile_tensor(0, (4,), (1,))
    assert made in program
    program = program.replace(made, made + b"}X\x07\0\0\0strides" + strides + b"sb")
    path = zip_of(tmp_path / "x.pt", program, **{"0": bytes(16)})
    with pytest.raises(ValueError, match="it changes Tensor"):
        read_torch_file(path)


def test_a_claim_of_many_bytes_takes_no_memory(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.pt", b"\x80\x05\x96" + struct.pack("<Q", 1 << 30) + b"few.")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected a file of weights"):
            read_torch_file(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_strided_view_is_read(tmp_path: Path) -> None:
    content = np.arange(4, dtype=np.float32).tobytes()
    path = zip_of(tmp_path / "x.pt", hostile_tensor(0, (2, 2), (1, 2)), **{"0": content})
    np.testing.assert_array_equal(read_torch_file(path)["w"], [[0, 2], [1, 3]])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_truncation_at_any_byte_is_one_error(suffix: str, tmp_path: Path) -> None:
    encode = torch_file_bytes if suffix == "pt" else safetensors_bytes
    whole = encode(TENSORS)
    path = tmp_path / f"weights.{suffix}"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"weights\.") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


def test_another_file_is_said_to_be_none_of_weights(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("10\t300\n")
    with pytest.raises(ValueError, match="expected a file of weights as PyTorch saves"):
        read_tensors(tmp_path / "pairs.txt")


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_makes_no_run(
    suffix: str, kept: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = safetensors_bytes if suffix == "safetensors" else torch_file_bytes
    whole, path = encode(weights_of("sfnet4")), tmp_path / f"weights.{suffix}"
    path.write_bytes(whole[: int(kept * len(whole))])
    flags = ["--arch", "sfnet4", "--out", tmp_path / "run", *FLAGS]
    assert str(path) in refused(capsys, "import", path, *flags)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]}}',
    ],
)
def test_a_wrong_safetensors_header_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match=r"x\.safetensors: not a whole safetensors file"):
        read_safetensors(path)


def weights_of(arch: str) -> dict[str, np.ndarray]:
    return state_dict(MODELS[arch](**SMALL, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("fc.bias"), r"1 missing (fc.bias)"),
        (lambda w: w.update(extra=np.zeros(2, np.float32)), r"1 left over (extra)"),
        (lambda w: w.update({"fc.bias": np.zeros(5, np.float32)}), "fc.bias (5,) for (3,)"),
        (lambda w: w.update({"fc.bias": np.zeros(3, np.int64)}), "without real numbers (fc.bias"),
        (
            lambda w: w.update({"fc.bias": np.full(3, np.nan, np.float32)}),
            "1 not finite (fc.bias)",
        ),
        (
            lambda w: w.update({"layer1.0.bn1.running_var": np.full(2, -1, np.float32)}),
            "1 negative (layer1.0.bn1.running_var)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_listed(
    change, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of("sfnet4_bn")
    change(weights)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_bytes(weights))
    flags = ["--arch", "sfnet4_bn", "--out", tmp_path / "run", *FLAGS]
    assert message in refused(capsys, "import", path, *flags)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_wrapped_network_is_imported_and_what_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "weights.safetensors", tmp_path / "run"
    wrapped = {f"_orig_mod.backbone.{name}": w for name, w in weights_of("sfnet4").items()}
    path.write_bytes(safetensors_bytes(wrapped))
    said = refused(capsys, "import", path, "--arch", "iresnet18", "--out", out, *FLAGS)
    assert "missing" in said
    assert "left over" in said
    flags = ["--arch", "sfnet4", "--out", out, *FLAGS]
    assert "found none" in refused(capsys, "import", tmp_path / "no.pt", *flags)
    wrong = ["--arch", "resnet", "--out", out]
    assert "--arch: expected one of" in refused(capsys, "import", path, *wrong)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert call("import", path, *flags) == 0
    said = "The names of the tensors were read without _orig_mod.backbone.\n"
    assert said in capsys.readouterr().out
    imported = json.loads((out / "import.json").read_text())
    assert imported["dropped_prefixes"] == ["_orig_mod.backbone."]
    assert "does not exist yet" in refused(capsys, "import", path, *flags)


@pytest.mark.parametrize(
    ("name", "rest", "dropped"),
    [
        ("module.fc.bias", "fc.bias", ["module."]),
        ("model.backbone.fc.bias", "fc.bias", ["model.backbone."]),
        ("_orig_mod.module.module.fc.bias", "fc.bias", ["_orig_mod.module.module."]),
        ("layer1.module.bias", "layer1.module.bias", []),
        ("models.fc.bias", "models.fc.bias", []),
    ],
)
def test_what_wraps_a_network_is_dropped_from_its_names(
    name: str, rest: str, dropped: list[str]
) -> None:
    tensors = {name: np.zeros(2), "conv.weight": np.ones(3)}
    bare, said = without_wrappers(tensors)
    assert_same(bare, {rest: tensors[name], "conv.weight": np.ones(3)})
    assert said == dropped


def test_two_tensors_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    weights = weights_of("sfnet4")
    path.write_bytes(safetensors_bytes(weights | {"module.fc.bias": weights["fc.bias"] + 1}))
    flags = ["--arch", "sfnet4", "--out", tmp_path / "run", *FLAGS]
    said = refused(capsys, "import", path, *flags)
    assert f"{path}: expected each tensor once, found fc.bias and module.fc.bias" in said
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pixel-divisor", 0], "data.pixel_divisor: expected a number above 0, got 0.0"),
        (["--pixel-divisor", "nan"], "data.pixel_divisor: expected a number above 0, got nan"),
        (["--image-size", 0, 16], "data.image_size: expected a whole number of at least 1"),
        (["--embedding-dim", 0], "model.embedding_dim: expected a whole number of at least 1"),
        (["--channels", 2, 2, 4, -4], "model.channels: expected a whole number of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(
    flags: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_bytes({"w": np.zeros(2, np.float32)}))
    options = ["--arch", "sfnet4", "--out", tmp_path / "run", *FLAGS, *flags]
    assert message in refused(capsys, "import", path, *options)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
