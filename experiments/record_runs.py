"""Keeps what runs and their evaluations measured in one JSON of experiments/results.

    python -m experiments.record_runs runs/first runs/second --score lfw lfw.json \
        --score held_out held_out.json --out experiments/results/faces9k.json

A run gives its config, some fifty points of its curve and its scores on held-out identities; a
score is a file that `sphereface evaluate --json` wrote. Absolute paths keep their last part alone.
"""

from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from sphereface_jax.data.files import read_json, read_records
from sphereface_jax.training.config import to_dict
from sphereface_jax.training.run_folder import read_config

KEPT = (
    "step",
    "loss",
    "accuracy",
    "target_angle",
    "embedding_norm",
    "annealing_lambda",
    "images_per_second",
    "input_wait_share",
)
POINTS = 50


def without_folders(values: Any) -> Any:
    """Returns JSON values with the last part of each absolute path in place of the path."""
    if isinstance(values, dict):
        return {name: without_folders(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_folders(value) for value in values]
    return Path(values).name if isinstance(values, str) and values.startswith("/") else values


def run_summary(path: Path) -> dict[str, Any]:
    """Returns a run's config, a thinned curve, and its scores on held-out identities.

    Args:
      path: the run's folder.

    Raises:
      FileNotFoundError: it is not a run.
      ValueError: it has logged nothing yet.
    """
    config = read_config(path)
    # Of this folder, which may have moved since its config was written.
    records = read_records(path / "metrics.jsonl")
    if not records:
        raise ValueError(f"{path}: expected metrics of some steps, found none; train it first")
    thinned = records[:: max(len(records) // POINTS, 1)]
    rates = [record["images_per_second"] for record in records]
    return {
        "config": to_dict(config),
        "steps_made": records[-1]["step"],
        "images_per_second_median": sorted(rates)[len(rates) // 2],
        "input_wait_share_mean": sum(r["input_wait_share"] for r in records) / len(records),
        "curve": [{name: r[name] for name in KEPT if name in r} for r in thinned],
        "held_out_curve": read_records(path / "validation.jsonl"),
    }


def main(
    runs: Annotated[list[Path], tyro.conf.Positional],
    out: Path,
    score: Annotated[list[tuple[str, Path]], tyro.conf.UseAppendAction] = [],  # noqa: B006
) -> None:
    """Writes the JSON.

    Args:
      runs: folders of runs.
      out: the file.
      score: a name and a file of scores; again for another.

    Raises:
      FileExistsError: `out` is there already.
      ValueError: two runs or two scores of one name.
    """
    if out.exists():
        raise FileExistsError(f"{out}: expected a new file, found results; name another")
    for what, names in (("runs", [path.name for path in runs]), ("scores", [n for n, _ in score])):
        if len(set(names)) < len(names):
            raise ValueError(f"{what}: expected each name once, got {', '.join(names)}")
    results = {
        "runs": {path.name: run_summary(path) for path in runs},
        "scores": {name: read_json(path) for name, path in score},
        "machine": describe_machine(),
    }
    write_results(out, without_folders(results))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
