"""The top of a report: who the run is in a sentence, and its headline numbers."""

from collections.abc import Sequence
from typing import Any

from sphereface_jax.evaluation.results import result_cells
from sphereface_jax.losses import LOSSES
from sphereface_jax.reports.html import cards, table
from sphereface_jax.reports.run_record import RunRecord

_MOST = 6
# By the field that tells a kind of result: headings of `result_cells`, each with the number's name
# and its rule, "" for the protocol's name.
_SHOWN = {
    "accuracy_10_fold": (
        ("accuracy", "Verification accuracy", ""),
        ("EER", "Equal error rate", "false accepts = false rejects"),
        ("TAR at\n1e-3", "True accepts", "at one false accept in 1,000"),
    ),
    "rank_k": (("rank\n1", "Rank-1 identification", ""),),
    "angular_fisher_score": (
        ("angular\nFisher", "Angular Fisher score", "within over between; lower is better"),
    ),
}


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
    faces = f"synthetic faces{classes}" if data == "synthetic" else f"the faces{classes} in {data}"
    done = f"{config['steps']:,} steps"
    if not run.finished:
        done = f"{last_step(run):,} of {done}"
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
    found = []
    for field, shown in _SHOWN.items():
        score = next((each for each in run.scores if field in each.numbers), None)
        cells = {} if score is None else result_cells(score.numbers)
        for heading, name, rule in shown:
            value, _, spread = cells.get(heading, "–").partition(" ± ")
            if score is not None and value != "–":
                where = rule or f"{score.protocol} on {score.on}"
                found.append((name, value, f"{where}, ± {spread}" if spread else where))
    return found + _training(run)


def _training(run: RunRecord) -> list[tuple[str, str, str]]:
    if not run.metrics:
        return []
    last = run.metrics[-1]
    step = f"at step {last['step']:,}" + ("" if run.finished else ", not finished")
    speeds = [each["images_per_second"] for each in run.metrics if "images_per_second" in each]
    found = [
        ("Training loss", f"{last['loss']:.3f}", step),
        ("Target angle", f"{last['target_angle']:.1f}°", "to the target prototype, the last batch"),
        ("Training accuracy", f"{last['accuracy']:.1%}", "without the margin, the last batch"),
    ]
    if speeds:
        speed = f"{sum(speeds) / len(speeds):,.0f}"
        found.append(("Images a second", speed, "in training, mean of the log"))
    return found
