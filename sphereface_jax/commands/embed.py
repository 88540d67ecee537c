"""What `sphereface embed` does: every image under a folder to vectors in a file."""

from pathlib import Path

from rich.console import Console

from sphereface_jax._console import counting, say, say_found, warn
from sphereface_jax.commands.face_options import EmbedOptions
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.files import atomic_file, require_writable_folder
from sphereface_jax.data.finder import find_images_below, passed_over_table
from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.vectors import FaceVectors, save_vectors
from sphereface_jax.embedder import FaceEmbedder


def embed_folder(options: EmbedOptions, *, console: Console) -> None:
    """Embeds the images of a folder and writes them to an .npz file.

    Args:
      options: the run, the images and the file. OUT.skipped.tsv lists the images that were skipped,
        and what in the folder is not an image.
      console: where to print.

    Raises:
      FileNotFoundError: there is no run, no such folder, or nowhere to write the file.
      ValueError: the file is there; an image cannot be read or has the wrong size, it is named; or
        none can be read.
    """
    out = options.out
    if out.exists():
        raise ValueError(
            f"{out}: expected a file that does not exist yet; delete it or name another"
        )
    require_writable_folder(out)
    found = find_images_below(options.directory)
    say_found(console, found)
    embedder = FaceEmbedder.from_run(options.run, aligner=face_aligner() if options.align else None)
    errors: dict[int, str] | None = None if options.on_error == "raise" else {}
    with counting(console, "embedding", "images", len(found.names)) as advance:
        embeddings, mirrored = embedder.embed_source(
            ImagePaths(found.paths), errors=errors, advance=advance
        )
    names = [Path(name).as_posix() for i, name in enumerate(found.names) if i not in (errors or {})]
    save_vectors(out, FaceVectors(names, embeddings, mirrored))
    count, dim = embeddings.shape
    say(console, f"{out}: {count:,} embeddings of {dim} numbers")
    skipped = [(found.names[i], why) for i, why in sorted((errors or {}).items())]
    if skipped or found.passed_over:
        table = out.with_name(f"{out.name}.skipped.tsv")
        with atomic_file(table) as file:
            file.write(passed_over_table([*skipped, *found.passed_over]))
        if skipped:
            warn(console, f"{table}: {len(skipped):,} images have no vector")
