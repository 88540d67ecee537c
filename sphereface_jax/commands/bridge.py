"""A bridge between two networks: learn it, measure it on people it has not seen, keep it."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say
from sphereface_jax.commands.reference_options import BridgeOptions
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.files import atomic_file, require_writable_folder, write_json
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.text import existing_file
from sphereface_jax.data.vectors import FaceVectors, identity_of, load_vectors, path_ending
from sphereface_jax.evaluation.bridge import BridgeMap, CrossResult, candidate_maps, cross_tar
from sphereface_jax.evaluation.rates import compare_strangers
from sphereface_jax.training.config import check_options

_PARTS = (0.6, 0.8)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredBridge:
    """A map, the networks it leads from and to, and how strangers score across it.

    Attributes:
      map: from old vectors to new ones.
      old: fingerprint of the network it leads from.
      new: of the network it leads to.
      old_name: folder of the run, or the file of vectors.
      new_name: likewise.
      highest: float32 [M, K], as `Strangers.highest`, new vectors searched among mapped old ones.
    """

    map: BridgeMap
    old: str
    new: str
    old_name: str
    new_name: str
    highest: np.ndarray

    def check(self, old: str, new: str, *, path: Path | None) -> None:
        """Refuses other networks than those it was learnt for.

        Args:
          old: fingerprint of the network whose vectors are to be mapped.
          new: fingerprint of the network that is to read them.
          path: of the bridge's file, for the error.

        Raises:
          ValueError: naming which.
        """
        for side, expected, found, name in (
            ("from", self.old, old, self.old_name),
            ("to", self.new, new, self.new_name),
        ):
            if expected != found:
                raise ValueError(
                    f"{path}: expected a bridge {side} the network {found[:8]}, got one {side} "
                    f"{expected[:8]} of {name}"
                )

    def save(self, path: Path) -> None:
        """Writes it, atomically and without pickles."""
        arrays: dict[str, Any] = {
            "weights": self.map.weights,
            "offset": self.map.offset,
            "kind": np.array(self.map.kind),
            "highest": self.highest,
            **{
                name: np.array(getattr(self, name))
                for name in ("old", "new", "old_name", "new_name")
            },
        }
        with atomic_file(path) as file:
            np.savez(file, **arrays)


def load_bridge(path: Path) -> StoredBridge:
    """Reads a stored bridge; nothing in it is unpickled.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is another file, or damaged.
    """
    opened = existing_file(path, "a bridge; `sphereface bridge` makes one").open("rb")
    try:
        with opened, np.load(opened, allow_pickle=False) as file:
            names = {name: str(file[name]) for name in ("old", "new", "old_name", "new_name")}
            link = BridgeMap(file["weights"], file["offset"], str(file["kind"]))
            highest = file["highest"]
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        raise ValueError(
            f"{path}: expected a bridge, as `sphereface bridge` writes it, found another or a "
            "damaged file"
        ) from None
    shapes = link.weights.shape, link.offset.shape
    if link.weights.ndim != 2 or shapes[1] != shapes[0][1:] or highest.ndim != 2:
        raise ValueError(
            f"{path}: expected weights [D_old, D_new] and offset [D_new], got {list(shapes[0])} "
            f"and {list(shapes[1])}"
        )
    return StoredBridge(map=link, highest=highest, **names)


def bridge(options: BridgeOptions, *, console: Console) -> None:
    """Learns a map from one network's vectors to another's and stores it.

    The map is learnt on 60 % of the people (nobody's name is used for it), chosen among
    Procrustes and several ridges on 20 %, and measured on the last 20 %.

    Args:
      options: what to do.
      console: where to print.

    Raises:
      FileNotFoundError: a file or folder is missing.
      ValueError: an option is out of range, too few pictures or people are shared, or a file is
        damaged.
    """
    check_options(options)
    old, new, out, far = options.old, options.new, options.out, options.far
    for path in (out, options.json):
        if path is not None:
            require_writable_folder(path)
    sides = [_vectors(path, options, console) for path in (old, new)]
    (first, old_print), (second, new_print) = sides
    rows = second.find_rows([path_ending(path, 2) for path in first.paths])
    shared = np.flatnonzero(rows >= 0)
    people = np.array([identity_of(first.paths[row]) for row in shared.tolist()], dtype=str)
    x, y = first.features(shared), second.features(rows[shared])
    parts = _split(people, options.seed)
    fit, choose, test = parts
    maps = candidate_maps(x[fit], y[fit])
    scores = [
        cross_tar(each(x[choose]), y[choose], people[choose], far=far).tar.rate for each in maps
    ]
    best = maps[int(np.argmax(scores))]
    mapped = best(x[test])
    results = {
        "old against old": cross_tar(x[test], x[test], people[test], far=far),
        "new against new": cross_tar(y[test], y[test], people[test], far=far),
        "old, mapped, against new": cross_tar(mapped, y[test], people[test], far=far),
    }
    if x.shape[1] == y.shape[1]:
        # What `train --compatible-with` is for: no map at all.
        results["old, as it is, against new"] = cross_tar(x[test], y[test], people[test], far=far)
    strangers = compare_strangers(y[test], people[test], mapped)
    StoredBridge(best, old_print, new_print, str(old), str(new), strangers.highest).save(out)
    num_people = [len(np.unique(people[part])) for part in parts]
    say(
        console,
        f"{out}: {best.kind}, learnt from {fit.sum():,} pictures of {num_people[0]:,} people, "
        f"chosen on {num_people[1]:,}, measured on {num_people[2]:,} others",
    )
    for name, result in results.items():
        say(console, f"  {name}: {_describe(result)}")
    if options.json is not None:
        numbers = {name: result.to_json() for name, result in results.items()}
        write_json(options.json, {"kind": best.kind, "people": num_people, "results": numbers})


def _vectors(path: Path, options: BridgeOptions, console: Console) -> tuple[FaceVectors, str]:
    """The vectors of a file, or those of a run for the pictures of a folder; and a fingerprint."""
    if not path.is_dir():
        vectors = load_vectors(path)
        return vectors, hashlib.sha256(vectors.embeddings.tobytes()).hexdigest()[:32]
    from sphereface_jax.embedder import FaceEmbedder
    from sphereface_jax.references import run_fingerprint

    images = options.images
    if images is None:
        raise ValueError(f"--images: expected the pictures that {path} is to embed, got none")
    paths = find_images_below(images).paths
    embedder = FaceEmbedder.from_run(path, aligner=face_aligner() if options.align else None)
    with counting(console, f"embedding by {path.name}", "images", len(paths)) as advance:
        vectors = embedder.embed_paths(paths, advance=advance)
    names = [each.relative_to(images).as_posix() for each in paths]
    return (
        FaceVectors(names, vectors.embeddings, vectors.mirrored),
        run_fingerprint(embedder.run),
    )


def _split(people: np.ndarray, seed: int) -> list[np.ndarray]:
    """Which pictures to learn from, to choose on and to measure on: no person in two parts."""
    names = np.unique(people)
    if len(names) < 10 or "" in names:
        raise ValueError(
            f"--images: expected shared pictures of ten people or more as <Name>/<image>, found "
            f"{len(people):,} of {len(names):,}"
        )
    order = np.random.default_rng(seed).permutation(names)
    ends = [int(part * len(order)) for part in _PARTS]
    return [np.isin(people, part) for part in np.split(order, ends)]


def _describe(result: CrossResult) -> str:
    tar = result.tar
    return (
        f"TAR {tar.rate:.2%} (95 % over people: {tar.low:.2%} to {tar.high:.2%}) at FAR "
        f"{result.far:g}, {tar.trials:,} same and {result.num_different:,} different pairs"
    )
