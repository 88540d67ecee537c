"""Folders of identities inside a `.zip` or a `.tar`, read in place.

Only the directory of the archive is read on opening; an image is one read at its offset, plus
inflating in a zip that compresses. Nothing is ever unpacked to disk. An identity is the folder
that an image lies in, however deep in the archive. Links, absolute paths and paths with `..` are
refused: they have no place among images, and who unpacked them would write outside the folder.
"""

import functools
import os
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.finder import PassedOver, is_hidden, why_no_image
from sphereface_jax.data.folder import check_identities
from sphereface_jax.data.images import IMAGE_SUFFIXES, UnreadableImage
from sphereface_jax.data.source import EncodedFaces
from sphereface_jax.data.text import existing_file

_LARGEST_IMAGE = 1 << 28  # inflating stops here, whatever the archive promises
_ZIP_LOCAL_HEADER = struct.Struct("<4s22sHH")


class Member(NamedTuple):
    """An image in an archive.

    Attributes:
      name: its path in the archive.
      offset: where its data starts in a tar, and its local header in a zip.
      stored: bytes that it takes in the archive.
      method: `zipfile.ZIP_STORED`, `ZIP_DEFLATED`, or None in a tar.
      fault: why it cannot be read, or None.
    """

    name: str
    offset: int
    stored: int
    method: int | None
    fault: str | None = None


class ArchiveSource(EncodedFaces):
    """A face source over a `.zip` or an uncompressed `.tar` of identity folders.

    Args:
      path: the archive.

    Attributes:
      passed_over: what it holds and is not an image (`data/finder.py`), hidden files apart.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such an archive, damaged, encrypted, compressed as a whole, a link or a path
        that leaves the folder, two folders of one name, or no images.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = existing_file(path, "an archive")
        members = list(_list_members(self.path))
        self._descriptor = os.open(self.path, os.O_RDONLY)
        # Not at exit: by then other threads may still read, and the system closes it anyway.
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        self.passed_over: list[PassedOver] = []
        self._members = sorted(self._images(members), key=lambda m: (_folder(m).name, m.name))
        folders = [_folder(member) for member in self._members]
        self.identities = self._names(folders)
        label = {name: i for i, name in enumerate(self.identities)}
        self.labels = np.array([label[folder.name] for folder in folders], np.int32)

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index`, inflated.

        Raises:
          UnreadableImage: the archive is damaged or cut short there.
        """
        return self._read(self._members[index])

    def describe(self, index: int) -> str:
        """Archive and path within it."""
        return f"{self.path}:{self._members[index].name}"

    def contents(self) -> list[str]:
        """Name and stored size of every image."""
        return [f"{member.name} {member.stored}" for member in self._members]

    def _images(self, members: Iterable[Member]) -> Iterator[Member]:
        for member in members:
            if is_hidden(member.name):
                continue
            usual = member.name.lower().endswith(IMAGE_SUFFIXES)
            if member.fault and usual:
                raise ValueError(f"{self.path}:{member.name}: {member.fault}")
            try:
                why = member.fault or why_no_image(
                    member.name, functools.partial(self._read, member)
                )
            except UnreadableImage:
                why = "damaged or cut short"
            if why is None:
                yield member
            else:
                self.passed_over.append(PassedOver(member.name, why))

    def _read(self, member: Member, count: int = _LARGEST_IMAGE) -> bytes:
        """The first bytes of a member, all by default."""
        start, name = member.offset, f"{self.path}:{member.name}"
        if member.method is not None:
            head = os.pread(self._descriptor, _ZIP_LOCAL_HEADER.size, start)
            if len(head) < _ZIP_LOCAL_HEADER.size or head[:4] != b"PK\3\4":
                raise UnreadableImage(f"{name}: the archive is damaged there")
            _, _, name_length, extra_length = _ZIP_LOCAL_HEADER.unpack(head)
            start += _ZIP_LOCAL_HEADER.size + name_length + extra_length
        data = os.pread(self._descriptor, min(member.stored, count), start)
        if member.method != zipfile.ZIP_DEFLATED:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, count)
        except zlib.error as error:
            raise UnreadableImage(f"{name}: cannot be inflated ({error})") from None

    def _names(self, folders: list[PurePosixPath]) -> tuple[str, ...]:
        by_name: dict[str, PurePosixPath] = {}
        for folder in folders:
            expect(folder.name, self.path, "<identity>/<image>", "images at its top")
            other = by_name.setdefault(folder.name, folder)
            if other != folder:
                raise ValueError(
                    f"{self.path}: expected one folder per identity, found {other} and {folder}"
                )
        expect(by_name, self.path, "<identity>/<image>", "no images")
        check_identities(tuple(by_name), str(self.path))
        return tuple(by_name)


def _folder(member: Member) -> PurePosixPath:
    return PurePosixPath(member.name).parent


def _list_members(path: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(path):
        yield from _zip_members(path)
    elif tarfile.is_tarfile(path):
        yield from _tar_members(path)
    elif _first_bytes(path).startswith(b"PK"):
        raise ValueError(
            f"{path}: expected a whole .zip, found one without its directory; it is cut short"
        )
    else:
        raise ValueError(f"{path}: expected a .zip or a .tar, found neither")


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


def _zip_members(path: Path) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from None
    size = path.stat().st_size
    for entry in entries:
        name = f"{path}:{entry.filename}"
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            raise ValueError(f"{name}: expected images in folders, found a link")
        expect(entry.filename, name, "a name", "none; the archive is damaged")
        _check_inside(entry.filename, name)
        if entry.filename.endswith(".rec"):
            raise ValueError(f"{name}: a RecordIO file; unzip the archive and name its folder")
        if entry.is_dir():
            continue
        fault = None
        if entry.flag_bits & 1:
            fault = "expected images in the clear, found an encrypted one"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            fault = f"expected to be stored or deflated, found method {entry.compress_type}"
        elif not 0 <= entry.header_offset < size:
            fault = "damaged or cut short"
        yield Member(
            entry.filename, entry.header_offset, entry.compress_size, entry.compress_type, fault
        )


def _tar_members(path: Path) -> Iterator[Member]:
    if _first_bytes(path).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        raise ValueError(
            f"{path}: expected a .tar read at random, found a compressed one; decompress it first"
        )
    try:
        with tarfile.open(path, "r:") as archive:
            entries = archive.getmembers()
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from None
    size = path.stat().st_size
    for entry in entries:
        name = f"{path}:{entry.name}"
        expect(entry.isfile() or entry.isdir(), name, "images in folders", "a link or a device")
        _check_inside(entry.name, name)
        if entry.isfile():
            is_short = entry.issparse() or entry.offset_data + entry.size > size
            fault = "damaged or cut short" if is_short else None
            yield Member(entry.name, entry.offset_data, entry.size, None, fault)


def _check_inside(member: str, name: str) -> None:
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if member.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
        raise ValueError(f"{name}: expected a path within the archive, found one that leaves it")
