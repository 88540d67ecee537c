"""The `sphereface` command: reads arguments, calls the library, prints.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong (one line says how), 128 + n stopped by
signal n after saving.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from sphereface_jax.training.config import TrainConfig

app = tyro.extras.SubcommandApp()


@app.command
def quickstart(out: Path = Path("runs/quickstart"), *, seed: int = 0) -> None:
    """Train a small SphereNet on synthetic faces and score it on people it never saw.

    Args:
      out: folder of the run, with evaluation.json and the pictures.
      seed: of everything.
    """
    from sphereface_jax.quickstart import quickstart as run_quickstart

    run_quickstart(out, seed=seed, console=Console(soft_wrap=True))


@app.command
def train(config: Annotated[TrainConfig, arg(name="")]) -> None:
    """Train a network on faces; the same command again goes on where it stopped."""
    from sphereface_jax.training.loop import train as run_training

    console = Console(soft_wrap=True)
    record = run_training(config, console=console)
    console.print(
        f"{config.out}: step {record['step']}, loss {record['loss']!r}, "
        f"accuracy {record['accuracy']:.2%}, target angle {record['target_angle']:.1f}°",
        highlight=False,
    )


@app.command
def evaluate(
    run: Positional[Path | None] = None,
    *,
    pairs: Path,
    images: Path | None = None,
    embeddings: Path | None = None,
    protocol: tuple[str, ...] = (),
    json: Path | None = None,
    allow_missing: bool = False,
) -> None:
    """Score a run, or stored embeddings, on a list of pairs in LFW's format.

    Args:
      run: folder of the run; with --images.
      pairs: the list of pairs.
      images: folder of the pairs' images, <Name>/<Name>_0001.jpg.
      embeddings: an .npz file of embeddings, in place of a run and images.
      protocol: names of the protocols to score; every one by default.
      json: where to write the numbers.
      allow_missing: leave out the pairs whose images are missing, and say how many.
    """
    from sphereface_jax.evaluate import Options, evaluate_run, evaluate_vectors

    if (run is None) == (embeddings is None):
        raise ValueError("expected a run's folder or --embeddings FILE.npz, got both or neither")
    if run is not None and images is None:
        raise ValueError("--images: expected the folder of the pairs' images, got none")
    options = Options(protocols=protocol, json_out=json, allow_missing=allow_missing)
    if run is not None and images is not None:
        evaluate_run(run, pairs, images, options, console=Console(soft_wrap=True))
    elif embeddings is not None:
        evaluate_vectors(embeddings, pairs, options, console=Console(soft_wrap=True))


@app.command
def embed(run: Positional[Path], directory: Positional[Path], *, out: Path) -> None:
    """Write the embeddings of every image under a folder to an .npz file.

    Args:
      run: folder of the run.
      directory: folder of images, at any depth.
      out: the file; it must not exist yet.
    """
    from sphereface_jax.data.vectors import FaceVectors, save_vectors
    from sphereface_jax.embedder import FaceEmbedder, find_faces
    from sphereface_jax.training.reporting import counting

    if out.exists():
        raise ValueError(
            f"{out}: expected a file that does not exist yet; delete it or name another"
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"{out.parent}: expected a folder to write {out.name} into, found none"
        )
    console = Console(soft_wrap=True)
    paths = find_faces(directory)
    embedder = FaceEmbedder.from_run(run)
    with counting(console, "embedding", "images", len(paths)) as advance:
        vectors = embedder.embed_paths(paths, advance=advance)
    names = [path.relative_to(directory).as_posix() for path in paths]
    save_vectors(out, FaceVectors(names, vectors.embeddings, vectors.mirrored))
    count, dim = vectors.embeddings.shape
    console.print(f"{out}: {count:,} embeddings of {dim} numbers", highlight=False)


@app.command
def compare(run: Positional[Path], first: Positional[Path], second: Positional[Path]) -> None:
    """Say how alike two faces are, and whether they are one person.

    Args:
      run: folder of the run.
      first: an aligned face.
      second: another.
    """
    from sphereface_jax.evaluate import compare_faces

    compare_faces(run, first, second, console=Console(soft_wrap=True))


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line; `args` takes the place of the shell's arguments."""
    try:
        app.cli(
            prog="sphereface",
            description="Angular-margin learning of face embeddings in JAX.",
            args=args,
        )
    except (ValueError, OSError) as error:
        _fail(error, code=2)
    except RuntimeError as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception, *, code: int) -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"sphereface: {error}", highlight=False, markup=False
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
