"""The Markdown tables of docs/results.md, each from the results of one experiment."""

from collections.abc import Callable, Iterable

import numpy as np

from experiments.pages import Results, table

Columns = dict[str, Callable[[Results], str]]


def by_column(rows: Iterable[tuple[str, Results]], first: str, columns: Columns) -> str:
    """A table with a line for each row; a cell whose number is not there is a dash."""
    cells = ([name, *(_cell(make, found) for make in columns.values())] for name, found in rows)
    return table([first, *columns], cells)


def _cell(make: Callable[[Results], str], found: Results) -> str:
    try:
        return make(found)
    except KeyError:
        return "–"


def percent(number: float | None, digits: int = 2) -> str:
    """A fraction in per cent; a dash for a rate that too few pairs could show."""
    return "–" if number is None else f"{100 * number:.{digits}f} %"


def accuracy(found: Results) -> str:
    """A verification protocol's accuracy with the deviation of its folds."""
    deviation = found.get("accuracy_std")
    spread = "" if deviation is None else f" ± {percent(deviation)}"
    return percent(found["accuracy_10_fold"]) + spread


LEARNT: Columns = {
    "training loss": lambda found: f"{found['training']['loss']:.3f}",
    "training accuracy": lambda found: percent(found["training"]["accuracy"], 1),
    "`lfw_authors`": lambda found: accuracy(found["verification"]),
    "EER": lambda found: percent(found["verification"]["equal_error_rate"]),
    "TAR at FAR 1e-2": lambda found: percent(found["verification"]["tar_at_far"]["1e-2"], 1),
    "angle to own mean": lambda found: f"{found['geometry']['angles']['intra_class_mean']:.1f}°",
    "to nearest other": lambda found: (
        f"{found['geometry']['angles']['inter_class_nearest_mean']:.1f}°"
    ),
}


def over_seeds(found: Results) -> str:
    """The mean accuracy of the same run from several seeds, and the deviation between them."""
    scores = list(found["accuracy_by_seed"].values())
    spread = f" ± {percent(float(np.std(scores, ddof=1)))}" if len(scores) > 1 else ""
    return percent(float(np.mean(scores))) + spread


def study(results: Results, first: str) -> str:
    """The table of an experiment of run_study."""
    rows = results["variants"]
    seeds = max(len(row.get("accuracy_by_seed", ())) for row in rows.values())
    columns = LEARNT if seeds < 2 else LEARNT | {f"mean of {seeds} seeds": over_seeds}
    said = by_column(rows.items(), first, columns)
    gone = {name: row["diverged"] for name, row in rows.items() if "diverged" in row}
    notes = [f"\n\n{name} diverged: {message}." for name, message in gone.items()]
    return said + "".join(notes)


def spheres(results: Results) -> str:
    """The table of sphere3d.py."""
    columns = {
        "accuracy": lambda found: percent(found["accuracy"]),
        "angle to own mean": lambda found: f"{found['angles']['intra_class_mean']:.1f}°",
        "means, nearest two": lambda found: f"{found['angles']['inter_class_nearest_min']:.1f}°",
        "angular Fisher score": lambda found: f"{found['angular_fisher_score']:.4f}",
    }
    return by_column(results["variants"].items(), "margin", columns)


def classes(results: Results) -> str:
    """The table of scale_classes.py."""
    columns = {
        "a step": lambda found: f"{found['seconds_per_step']:.2f} s",
        "fastest step": lambda found: f"{found['fastest_step']:.2f} s",
        "peak memory": lambda found: f"{found['peak_gib']:.1f} GiB",
        "first loss": lambda found: f"{found['losses'][0]:.3f}",
        "last loss": lambda found: f"{found['losses'][-1]:.3f}",
    }
    return by_column(results["variants"].items(), "head", columns)


def benchmarks(results: Results) -> str:
    """The table of casia_lfw_ytf.py."""
    rows = [
        (f"{name}, `{protocol}`", found)
        for name, protocols in results["benchmarks"].items()
        for protocol, found in protocols.items()
    ]
    columns = {
        "accuracy": accuracy,
        "EER": lambda found: percent(found["equal_error_rate"]),
        "rank 1": lambda found: percent(found["rank_k"]["1"]),
        "TAR at FAR": lambda found: ", ".join(
            f"{far}: {percent(rate, 1)}"
            for far, rate in found["tar_at_far"].items()
            if rate is not None
        ),
        "size": _size,
    }
    return by_column(rows, "benchmark", columns)


def _size(found: Results) -> str:
    if "num_pairs" in found:
        return f"{found['num_pairs']:,} pairs"
    return f"{found['num_searches']:,} searches, {found['num_distractors']:,} distractors"


def goals(results: Results) -> str:
    """The two tables of accuracy.py: its goals, and both sides seed by seed."""
    said = {
        "first_steps": "first 20 losses, largest relative difference",
        "curves": "smoothed curves, mean gap of a seed; goal: mean spread of the seeds",
        "accuracy": "accuracy, difference of a seed; goal: deviation of the folds",
    }
    reached: Columns = {
        "found": lambda goal: f"{goal['found']:.2g}",
        "at most": lambda goal: f"{goal['at_most']:.2g}",
        "goal": lambda goal: "met" if goal["met"] else "**missed**",
    }
    by_seed: Columns = {
        "`lfw_authors`, here": lambda seed: accuracy(seed["here"]["verification"]),
        "`lfw_authors`, PyTorch": lambda seed: accuracy(seed["there"]["verification"]),
        "last loss, here": lambda seed: f"{seed['here']['losses'][-1]:.4f}",
        "last loss, PyTorch": lambda seed: f"{seed['there']['losses'][-1]:.4f}",
    }
    rows = [(said[name], goal) for name, goal in results["goals"].items()]
    return (
        by_column(rows, "", reached) + "\n\n" + by_column(results["seeds"].items(), "seed", by_seed)
    )
