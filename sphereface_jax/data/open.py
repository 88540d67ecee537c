"""`open_source`: tells the formats of faces apart by what is there, and opens them."""

from pathlib import Path
from typing import Any

from sphereface_jax.data.archives import ArchiveSource
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.lists import ListSource
from sphereface_jax.data.record_source import RecordSource
from sphereface_jax.data.source import FaceSource
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.tfds_source import TfdsSource


def open_source(
    spec: str,
    *,
    split: str = "train",
    data_dir: str | None = None,
    root: str | None = None,
    **synthetic: Any,
) -> FaceSource:
    """Opens a source of faces, telling the formats apart by what is there.

    Args:
      spec: a folder of identities; a `.zip` or `.tar` of one; a RecordIO file, or the folder that
        holds it; a list file of `path label` lines; `tfds:NAME`, or the bare name or the folder of
        a prepared TFDS data set; or `synthetic`.
      split: the split of a TFDS data set.
      data_dir: where TFDS data sets lie; TFDS's own default if None.
      root: the folder that the paths of a list file start from; the list's own if None.
      **synthetic: keyword arguments of `SyntheticFaces`, for `synthetic` alone.

    Returns:
      A `FaceSource`.

    Raises:
      FileNotFoundError: nothing of that name.
      ValueError: something is there and it is not a face data set.
    """
    if spec == "synthetic":
        return SyntheticFaces(**synthetic)
    if synthetic:
        raise ValueError(f"{spec}: {sorted(synthetic)} are options of synthetic faces only")
    path = Path(spec)
    if path.is_dir() and not (path / "dataset_info.json").exists():
        if any(path.glob("*.rec")):
            return RecordSource(path)
        return ImageFolder(path)
    if path.is_file():
        return _open_file(path, root)
    name = spec.removeprefix("tfds:")
    if name == spec and not path.exists() and ("/" in spec or "." in spec):
        raise FileNotFoundError(
            f"{spec}: no such file or folder; expected a folder of identities, an archive of one, "
            "a RecordIO file, a list file, the name of a TFDS data set, or 'synthetic'"
        )
    return TfdsSource(name, split=split, data_dir=data_dir)


def _open_file(path: Path, root: str | None) -> FaceSource:
    with open(path, "rb") as file:
        start = file.read(512)
    if start[:4] == bytes.fromhex("0a23d7ce") or path.suffix in (".rec", ".idx"):
        return RecordSource(path)
    if start[:2] in (b"PK", b"\x1f\x8b", b"BZ", b"\xfd7") or start[257:262] == b"ustar":
        return ArchiveSource(path)
    if start[:1] == b"\x80" or path.suffix == ".bin":
        raise ValueError(
            f"{path}: expected faces to train on, found what looks like a verification pack, which "
            "has pairs and no identities; evaluate on it instead"
        )
    return ListSource(path, root)
