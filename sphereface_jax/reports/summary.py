"""The top of a report: who the run is in a sentence, and its headline numbers."""

from collections.abc import Sequence
from typing import Any

from sphereface_jax.losses import LOSSES
from sphereface_jax.reports.html import cards, table
from sphereface_jax.reports.run_record import RunRecord, Score

_MOST = 6


def subtitle(runs: Sequence[RunRecord]) -> str:
    """Says what the runs are."""
    if len(runs) > 1:
        return f"{len(runs)} runs on one page, each in its colour."
    run = runs[0]
    config, model = run.config, run.config["model"]
    if run.imported is not None:
        return f"{model['name']}, with weights imported from {run.imported['file']}."
    classes = ""
    known = LOSSES.get(config["loss"]["name"])
    has_subcenters = known is not None and known.num_subcenters is not None
    if run.prototypes is not None and not has_subcenters:
        classes = f" of {int(run.prototypes.num_prototypes):,} people"
    data = config["data"]["train"]
    faces = "synthetic faces" if data == "synthetic" else f"the faces{classes} in {data}"
    if data == "synthetic":
        faces += classes
    steps = f"{last_step(run):,} of {config['steps']:,} steps" * (not run.finished)
    done = steps or f"{config['steps']:,} steps"
    return (
        f"{model['name']} trained with {loss_name(config)} on {faces}: {done} of "
        f"{config['batch_size']} images."
    )


def loss_name(config: Any) -> str:
    """The loss and its margin, in words."""
    loss = config["loss"]
    known = LOSSES.get(loss["name"])
    name = loss["name"] if known is None else known.title
    return name if loss["margin"] is None else f"{name} (m = {loss['margin']:g})"


def last_step(run: RunRecord) -> int:
    """The last step that was logged."""
    return int(run.metrics[-1]["step"]) if run.metrics else 0


def summary(runs: Sequence[RunRecord]) -> str:
    """Cards for one run, a table for several."""
    if len(runs) == 1:
        return cards(_headlines(runs[0])[:_MOST])
    headlines = [{name: value for name, value, _ in _headlines(run)} for run in runs]
    names = list(dict.fromkeys(name for each in headlines for name in each))[:_MOST]
    rows = [
        [run.name, *(each.get(name, "–") for name in names)]
        for run, each in zip(runs, headlines, strict=True)
    ]
    return table(["run", *names], rows, caption="The headline numbers of each run")


def _headlines(run: RunRecord) -> list[tuple[str, str, str]]:
    """Name, value and rule of each number, what matters most first."""
    score, found = run.main_score, []
    if score is not None:
        found += _verification(score)
    rank = next((s for s in run.scores if "rank_k" in s.numbers), None)
    if rank is not None:
        value = f"{rank.numbers['rank_k']['1']:.1%}"
        found.append(("Rank-1 identification", value, f"{rank.protocol} on {rank.on}"))
    geometry = next((s for s in run.scores if "angular_fisher_score" in s.numbers), None)
    if geometry is not None:
        value = f"{geometry.numbers['angular_fisher_score']:.3f}"
        found.append(("Angular Fisher score", value, "within over between; lower is better"))
    return found + _training(run)


def _verification(score: Score) -> list[tuple[str, str, str]]:
    numbers = score.numbers
    spread = numbers.get("accuracy_std")
    rule = f"{score.protocol} on {score.on}" + (f", ± {spread:.2%}" if spread is not None else "")
    rates = numbers.get("tar_at_far", {})
    found = [
        ("Verification accuracy", f"{numbers['accuracy_10_fold']:.2%}", rule),
        ("Equal error rate", f"{numbers['equal_error_rate']:.1%}", "false accepts = false rejects"),
    ]
    if rates.get("1e-3") is not None:
        found.append(("True accepts", f"{rates['1e-3']:.1%}", "at one false accept in 1,000"))
    return found


def _training(run: RunRecord) -> list[tuple[str, str, str]]:
    if not run.metrics:
        return []
    last = run.metrics[-1]
    step = f"at step {last['step']:,}" + ("" if run.finished else ", not finished")
    speeds = [each["images_per_second"] for each in run.metrics if "images_per_second" in each]
    found = [
        ("Training loss", f"{last['loss']:.3f}", step),
        ("Target angle", f"{last['target_angle']:.1f}°", "to the own prototype, the last batch"),
        ("Training accuracy", f"{last['accuracy']:.1%}", "without the margin, the last batch"),
    ]
    if speeds:
        speed = f"{sum(speeds) / len(speeds):,.0f}"
        found.append(("Images a second", speed, "in training, mean of the log"))
    return found
