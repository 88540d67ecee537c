"""What `sphereface report` does: runs' folders in, one HTML page out.

The page is derived from the runs' files, and nothing in it is kept only there: another call
replaces it, atomically.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sphereface_jax import __version__
from sphereface_jax._console import say
from sphereface_jax.commands.compare import read_calibration
from sphereface_jax.commands.keep import PROTOTYPES, TRAINING, load_stored
from sphereface_jax.commands.likelihood import read_likelihood
from sphereface_jax.data.files import read_json, read_json_if_there, read_records, write_atomically
from sphereface_jax.reports.report import render_report
from sphereface_jax.reports.run_record import RunRecord, collect_scores
from sphereface_jax.reports.stored import StoredPairs, StoredPeople, StoredPrototypes
from sphereface_jax.training.config import to_dict
from sphereface_jax.training.run_folder import read_config


def report(
    runs: Sequence[Path], *, out: Path | None = None, faces: bool = True, console: Console
) -> Path:
    """Writes the report of runs.

    Args:
      runs: their folders.
      out: the page; report.html in the first run's folder by default.
      faces: whether to show the pictures of faces that the runs keep.
      console: where to say where it is.

    Returns:
      The page's path.

    Raises:
      FileNotFoundError: a folder holds no run.
      ValueError: no run was named, or one of a run's files is damaged.
    """
    if not runs:
        raise ValueError("runs: expected the folder of a run or more, got none")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise FileNotFoundError(f"{out}: expected the name of a page in a folder that exists")
    folders = [run.expanduser() for run in runs]
    names = _short_names(folders)
    records = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    page = out or folders[0] / "report.html"
    write_atomically(page, render_report(records, faces=faces, version=__version__))
    size = page.stat().st_size / 1e6
    say(console, f"{page}: the report, {size:.1f} MB, for any browser")
    return page


def read_run(folder: Path, name: str) -> RunRecord:
    """Reads what a run's folder holds, as far as a report shows it.

    Args:
      folder: the run's.
      name: what the report calls it.

    Returns:
      The record, with None or nothing for what is not there yet.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: one of its files is damaged.
    """
    config = to_dict(read_config(folder))
    training = load_stored(folder, StoredPeople, TRAINING)
    prototypes = load_stored(folder, StoredPrototypes, PROTOTYPES)
    return RunRecord(
        name=name,
        folder=str(folder),
        config=config,
        metrics=read_records(folder / "metrics.jsonl"),
        validation=read_records(folder / "validation.jsonl"),
        finished=(folder / "result.json").is_file(),
        imported=read_json_if_there(folder / "import.json"),
        scores=collect_scores(_evaluations(folder)),
        calibration=read_calibration(folder),
        pairs=_by_title(load_stored(folder, StoredPairs, "pairs-*")),
        people=_by_title(load_stored(folder, StoredPeople, "people-*")),
        training=training.get(TRAINING),
        prototypes=prototypes.get(PROTOTYPES),
        likelihood=read_likelihood(folder),
    )


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """What the run's evaluations measured, the oldest first."""
    paths = [folder / "evaluation.json", *(folder / "evaluations").glob("*.json")]
    there = [path for path in paths if path.is_file()]
    return [read_json(path) for path in sorted(there, key=lambda path: path.stat().st_mtime)]


def _by_title(stored: dict[str, Any]) -> dict[str, Any]:
    return {str(each.title): each for each in stored.values()}


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each folder's name, or as many as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names
