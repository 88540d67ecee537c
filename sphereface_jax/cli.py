"""The `sphereface` command: reads arguments, calls the library, prints.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong (one line says how), 128 + n stopped by
signal n after saving.
"""

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from sphereface_jax._console import show_anywhere
from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.commands.face_options import (
    CleanOptions,
    CompareOptions,
    EmbedOptions,
    PrepareOptions,
)
from sphereface_jax.commands.plan_options import PlanOptions
from sphereface_jax.commands.reference_options import (
    BridgeOptions,
    EnrollOptions,
    IdentifyOptions,
)
from sphereface_jax.commands.weight_options import ExportOptions, ImportOptions
from sphereface_jax.plan.targets import keep_compilers_out
from sphereface_jax.training.config import ProcessConfig, TrainConfig

app = tyro.extras.SubcommandApp()

_ADVICE = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name another place",
    errno.ENOTDIR: "a folder above it is a file; name another place",
    errno.EISDIR: "expected a file, found a folder",
    errno.ENOSPC: "free some space and give the same command again, or name another place",
}


@app.command
def quickstart(out: Path = Path("runs/quickstart"), *, seed: int = 0) -> None:
    """Train a small SphereNet on synthetic faces and score it on unseen people.

    Args:
      out: folder of the run, with evaluation.json and the pictures.
      seed: of everything.
    """
    from sphereface_jax.commands.quickstart import quickstart as run_quickstart

    run_quickstart(out, seed=seed, console=Console(soft_wrap=True))


@app.command
def train(
    config: Annotated[TrainConfig, arg(name="")], processes: Annotated[ProcessConfig, arg(name="")]
) -> None:
    """Train a network on faces; the same command again goes on where it stopped."""
    import jax

    from sphereface_jax._console import say
    from sphereface_jax.commands.keep import keep_training
    from sphereface_jax.commands.report import report as write_report
    from sphereface_jax.training.distributed import is_main, join_processes
    from sphereface_jax.training.loop import train as run_training

    join_processes(processes)
    console = Console(soft_wrap=True, quiet=not is_main())
    record = run_training(config, console=console)
    say(
        console,
        f"{config.out}: step {record['step']}, loss {record['loss']!r}, "
        f"accuracy {record['accuracy']:.2%}, target angle {record['target_angle']:.1f}°",
    )
    if jax.process_count() > 1:
        say(console, f"sphereface report {config.out}  # draws the report, in one process")
        return
    keep_training(config, console)
    write_report([config.out], console=console)


@app.command
def plan(
    config: Annotated[TrainConfig, arg(name="")], options: Annotated[PlanOptions, arg(name="")]
) -> None:
    """Say whether a run will fit devices that are not here, by their own compiler.

    Takes the options of train and compiles the very step that train would run. Nothing is trained
    and no data are read: the number of identities is --num-classes.
    """
    from sphereface_jax.commands.plan import plan as plan_run

    plan_run(config, options, console=Console(soft_wrap=True))


@app.command
def evaluate(options: Annotated[EvaluateOptions, arg(name="")]) -> None:
    """Score a run, or stored embeddings, by every protocol that the lists allow.

    Name a list of images (--pairs, --ytf, --ijb, --megaface.probes) and their folder, or packs; a
    folder alone, or embeddings alone, is searched for its own people.
    """
    from sphereface_jax.commands.evaluate import evaluate as run_evaluation

    run_evaluation(options, console=Console(soft_wrap=True))


@app.command
def report(
    runs: Positional[tuple[Path, ...]], *, out: Path | None = None, faces: bool = True
) -> None:
    """Write all there is to see of a run, or several side by side, as one HTML page.

    The page is self-contained: it needs no network. It is derived from the runs' files; another
    call replaces it.

    Args:
      runs: folders of runs.
      out: the page; report.html in the first run's folder by default.
      faces: show the pictures of faces that the runs keep; --no-faces for a page to be published.
    """
    from sphereface_jax.commands.report import report as write_report

    write_report(runs, out=out, faces=faces, console=Console(soft_wrap=True))


@app.command
def embed(options: Annotated[EmbedOptions, arg(name="")]) -> None:
    """Write the embeddings of every image under a folder to an .npz file."""
    from sphereface_jax.commands.embed import embed_folder

    embed_folder(options, console=Console(soft_wrap=True))


@app.command
def compare(options: Annotated[CompareOptions, arg(name="")]) -> None:
    """Say how alike two faces are, whether they are one person, and what that is worth."""
    from sphereface_jax.commands.compare import compare_faces

    compare_faces(options, console=Console(soft_wrap=True))


@app.command
def enroll(options: Annotated[EnrollOptions, arg(name="")]) -> None:
    """Enroll people by their pictures, for `identify`, or remove them.

    A person's vector is the mean of their pictures' embeddings, so longer ones weigh more. Whoever
    is enrolled already is enrolled anew.
    """
    from sphereface_jax.commands.references import enroll as enroll_people

    enroll_people(options, console=Console(soft_wrap=True))


@app.command
def identify(options: Annotated[IdentifyOptions, arg(name="")]) -> None:
    """Say who of the enrolled people each picture shows, or that it shows nobody."""
    from sphereface_jax.commands.references import identify as identify_images

    identify_images(options, console=Console(soft_wrap=True))


@app.command
def bridge(options: Annotated[BridgeOptions, arg(name="")]) -> None:
    """Learn a map from an old network's vectors to a new one's, so that people stay enrolled."""
    from sphereface_jax.commands.bridge import bridge as learn_bridge

    learn_bridge(options, console=Console(soft_wrap=True))


@app.command
def align(
    source: Positional[Path],
    *,
    out: Path,
    landmarks: Path | None = None,
    image_size: tuple[int, int] = (112, 112),
) -> None:
    """Cut aligned faces out of every image under a folder, into the same names elsewhere.

    Args:
      source: folder of photographs, at any depth.
      out: folder of the aligned faces; a second call goes on where the first one stopped.
      landmarks: a file of five points an image; without it a detector finds them.
      image_size: 112 112 or 112 96.
    """
    from sphereface_jax._console import counting, say
    from sphereface_jax.data.aligner import align_folder, face_aligner
    from sphereface_jax.data.finder import find_images_below

    console = Console(soft_wrap=True)
    aligner = face_aligner(image_size, landmarks)
    with counting(console, "aligning", "images", len(find_images_below(source).names)) as advance:
        summary = align_folder(source, out, aligner, advance=advance)
    for line in summary.lines():
        say(console, line)


@app.command
def prepare(options: Annotated[PrepareOptions, arg(name="")]) -> None:
    """Write any set of faces as a TFDS data set of ArrayRecord files."""
    from sphereface_jax.commands.prepare import prepare_faces

    prepare_faces(options, console=Console(soft_wrap=True))


@app.command
def clean(options: Annotated[CleanOptions, arg(name="")]) -> None:
    """Look for wrong labels in a set of faces: what to drop, move, merge and split.

    Nothing is changed. OUT/clean.csv is a list for `sphereface prepare --apply`, OUT/clean.html the
    same in pictures; the page shows faces and is for yourself.
    """
    from sphereface_jax.commands.clean import clean as look_for_noise

    look_for_noise(options, console=Console(soft_wrap=True))


@app.command(name="import")
def import_(options: Annotated[ImportOptions, arg(name="")]) -> None:
    """Make a run of weights from elsewhere: .safetensors, or PyTorch's .pt and .pth.

    No code of the file is run, and PyTorch is not needed.
    """
    from sphereface_jax.commands.import_weights import import_weights

    import_weights(options, console=Console(soft_wrap=True))


@app.command
def export(options: Annotated[ExportOptions, arg(name="")]) -> None:
    """Write a run's network for other programs; each file must not exist yet."""
    from sphereface_jax.commands.export_run import export_run

    export_run(options, console=Console(soft_wrap=True))


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line; `args` takes the place of the shell's arguments."""
    args = sys.argv[1:] if args is None else args
    keep_compilers_out()
    show_anywhere()
    try:
        _refuse_unknown_command(args)
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


def _refuse_unknown_command(args: Sequence[str]) -> None:
    """Says in a line what tyro says in thirty, with advice for options of other commands."""
    names = list(app._subcommands)
    if args and args[0] not in names and not args[0].startswith("-"):
        near = difflib.get_close_matches(args[0], names, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"expected one of {', '.join(names)}, got {args[0]!r}{advice}")


def _fail(error: Exception, *, code: int) -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"sphereface: {_one_line(error)}", highlight=False, markup=False
    )
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        # On its way out JAX would wait for the other processes, who may wait for this one, and
        # abort.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _one_line(error: Exception) -> str:
    """What an error says; one of the operating system's, which has an errno, in our own form."""
    said, advice = str(error), None
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        said, advice = f"{error.filename}: {error.strerror}", _ADVICE.get(error.errno)
    said = said.replace("\n", "\\n")  # of a file's name
    return said if advice is None else f"{said}; {advice}"


if __name__ == "__main__":
    main()
