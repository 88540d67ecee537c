"""The sections of a report: which plots, tables and pictures, and the words between them.

Each takes all runs of a page. What was not measured is said in a sentence that names the command.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sphereface_jax.data.files import flatten
from sphereface_jax.reports.hard_pairs import hard_pairs
from sphereface_jax.reports.html import (
    absent,
    details,
    escape,
    facts,
    jpeg,
    plot_figure,
    plots,
    section,
    table,
)
from sphereface_jax.reports.plot import titled
from sphereface_jax.reports.plots_errors import angle_plots, protocol_plot, roc_plots
from sphereface_jax.reports.plots_evidence import evidence_plots
from sphereface_jax.reports.plots_geometry import people_plot, prototype_plot, sphere_plot
from sphereface_jax.reports.plots_training import training_plots
from sphereface_jax.reports.run_record import RunRecord
from sphereface_jax.reports.stored import StoredPeople
from sphereface_jax.reports.summary import last_step, loss_name
from sphereface_jax.reports.tables import table_of_many, tables_of_one

_MOST_SPHERES = 4
_LOOSEST = 8


def _command(run: RunRecord, rest: str) -> str:
    return f"`sphereface evaluate {run.folder} {rest}`"


def _missing(
    runs: Sequence[RunRecord],
    has: Callable[[RunRecord], Any],
    sentence: Callable[[RunRecord], str],
) -> list[str]:
    """A sentence for each run that lacks something, with its name where there are several."""
    return [
        absent(sentence(run) if len(runs) == 1 else f"{run.name}: {sentence(run)}")
        for run in runs
        if not has(run)
    ]


def _outdated(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence for each run that was trained on after it was tested."""
    said = []
    for run in runs:
        steps = {int(pairs.step) for pairs in run.pairs.values()}
        steps |= {int(people.step) for people in run.people.values()}
        now = last_step(run)
        if steps and now > max(steps):
            said.append(absent(
                f"{run.name} was tested at step {max(steps):,} and is at step {now:,}: "
                "evaluate it again."
            ))  # fmt: skip
    return said


def configuration(runs: Sequence[RunRecord]) -> str:
    """What was asked for: the main choices, then everything; for several what differs."""
    flat = [flatten(run.config) for run in runs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    rows = [[name, *(_shown(each.get(name)) for each in flat)] for name in names]
    headings = ["field", *(run.name for run in runs)]
    whole = f'<div class="config">{table(headings, rows, caption="config.json, every field")}</div>'
    if len(runs) == 1:
        lead = "What the run was asked to do."
        body = facts(_choices(runs[0])) + details("Every field of config.json", whole)
        return section("configuration", "Configuration", lead, body)
    differing = [row for row in rows if len(set(row[1:])) > 1 and row[0] != "out"]
    lead = "Only what differs between the runs; the rest is below."
    body = (
        f'<div class="config">{table(headings, differing, caption="Fields that differ")}</div>'
        if differing
        else absent("The configs do not differ.")
    )
    return section(
        "configuration", "Configuration", lead, body, details("Every field of config.json", whole)
    )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return "–" if value is None else str(value)


def _choices(run: RunRecord) -> list[tuple[str, str]]:
    config = run.config
    data, model, optimizer, loss = (config[n] for n in ("data", "model", "optimizer", "loss"))
    height, width = data["image_size"]
    augments = ["mirror", "shift", "crop", "low_resolution", "blur", "photometric", "cutout"]
    used = [f"{name.replace('_', ' ')} {data[name]:g}" for name in augments if data.get(name)]
    schedule = optimizer["schedule"] + (
        f", {optimizer['warmup_steps']} steps of warm-up" if optimizer["warmup_steps"] else ""
    )
    return [
        ("Network", f"{model['name']}, {model['embedding_dim']} dimensions"),
        ("Loss", f"{loss_name(config)}, {loss['gradient']} gradient"),
        ("λ", f"from {loss['lambda_base']:g} to {loss['lambda_minimum']:g}"),
        ("Faces", f"{data['train']}, {height}×{width} {data['color_order'].upper()}"),
        ("Augmentation", ", ".join(used) or "none"),
        ("Optimiser", f"{optimizer['name']}, rate {optimizer['learning_rate']:g}"),
        ("Schedule", schedule),
        ("Length", f"{config['steps']:,} steps of {config['batch_size']} images"),
        ("Seed", str(config["seed"])),
    ]


def training(runs: Sequence[RunRecord]) -> str:
    """The curves."""
    drawn = training_plots(runs)
    lead = "What was logged batch by batch, faint, and its course, bold." if drawn else ""
    missing = "Nothing was logged: the weights were imported, or no step has been taken."
    return section(
        "training", "Training", lead, plots(drawn, small=True) if drawn else absent(missing)
    )


def sphere(runs: Sequence[RunRecord], *, faces: bool) -> str:
    """The hypersphere in three dimensions.

    Args:
      runs: of the report.
      faces: whether pictures of people may be shown.

    Returns:
      HTML.
    """
    parts, drawn = [], 0
    for run in runs:
        if run.config["model"]["embedding_dim"] < 3:
            parts.append(absent(f"The embeddings of {run.name} have too few dimensions for it."))
        sets = {"people it learnt": run.training}
        if run.main_people is not None:
            name, stored = run.main_people
            sets[f"people of {name}"] = stored
        of_run = "" if len(runs) == 1 else run.name
        for title, people in sets.items():
            plot = None if people is None else sphere_plot(titled(of_run, title), people)
            if plot is None or people is None or drawn >= _MOST_SPHERES:
                continue
            drawn += 1
            parts.append(plot_figure(plot, _legend(people, faces=faces)))
    parts += _missing(runs, lambda run: run.training or run.people, _no_sphere)
    if drawn == _MOST_SPHERES and len(runs) > 2:
        parts.append(absent("A browser turns a few spheres at a time: further ones are left out."))
    lead = (
        "A margin loss puts faces on a hypersphere, where the angle between two of them is all "
        "that counts."
    )
    return section("sphere", "The sphere", lead, *parts)


def _no_sphere(run: RunRecord) -> str:
    rest = _command(run, "--images DIR")
    return f"No embeddings were kept yet. {rest} on a folder of named people draws the sphere."


def _legend(people: StoredPeople, *, faces: bool) -> str:
    items = []
    for number, name in enumerate(people.shown.tolist()):
        mark = (
            jpeg(people.pictures[number], f"One image of {name}")
            if faces and len(people.pictures)
            else "<i></i>"
        )
        label = escape(name.replace("_", " "))
        items.append(f'<li style="--tone: var(--tone-{number})">{mark}{label}</li>')
    return f'<ul class="people" aria-label="Whose colour is whose">{"".join(items)}</ul>'


def decisions(runs: Sequence[RunRecord]) -> str:
    """Angles, ROC and DET of every list of pairs."""
    titles = list(dict.fromkeys(title for run in runs for title in run.pairs))
    lead = "Whether two images show one person, decided by the angle between them alone."
    parts = _outdated(runs)
    for title in titles:
        parts += [plots(angle_plots(runs, title)), plots(roc_plots(runs, title))]
    if drawn := evidence_plots(runs):
        parts.append(plots(drawn))
    parts += _missing(runs, lambda run: run.pairs, _no_scores)
    return section("decisions", "Same or different", lead, *parts)


def _no_scores(run: RunRecord) -> str:
    command = _command(run, "--pairs pairs.txt --images DIR")
    return f"No scores of pairs were kept yet. {command} measures and keeps them."


def protocols(runs: Sequence[RunRecord]) -> str:
    """Every number of every protocol."""
    lead = "A number means little without its protocol, so every one has its name beside it."
    tables = []
    if any(run.scores for run in runs):
        tables = tables_of_one(runs[0]) if len(runs) == 1 else [table_of_many(runs)]
    plot = protocol_plot(runs)
    drawn = plots([plot]) if plot is not None else ""
    missing = _missing(runs, lambda run: run.scores, _not_evaluated)
    return section("protocols", "Protocols side by side", lead, drawn, *tables, *missing)


def _not_evaluated(run: RunRecord) -> str:
    command = _command(run, "--pairs pairs.txt --images DIR")
    return f"The run has not been evaluated. {command} scores it by every protocol."


def mistakes(runs: Sequence[RunRecord], *, faces: bool) -> str:
    """The hardest pairs, in pictures.

    Args:
      runs: of the report.
      faces: whether pictures of people may be shown.

    Returns:
      HTML.
    """
    lead = (
        "The pairs that a run is most wrong about, at its threshold. Look for what they share: "
        "pose, age, light, a wrong label."
    )
    return section("mistakes", "Hardest pairs", lead, *hard_pairs(runs, faces=faces))


def people(runs: Sequence[RunRecord]) -> str:
    """Compactness of people and spread of prototypes."""
    lead = (
        "How tight each person is, how far the next one, and how the learnt directions fill the "
        "sphere."
    )
    drawn, parts = [], []
    for run in runs:
        if run.main_people is not None:
            title, stored = run.main_people
            drawn.append(people_plot(run, title, stored, alone=len(runs) == 1))
            parts.append(_loosest(run, title, stored, alone=len(runs) == 1))
        if run.training is not None and len(runs) == 1:
            drawn.append(people_plot(run, "the training set", run.training, alone=True))
    prototype = prototype_plot(runs)
    if prototype is not None:
        drawn.append(prototype)
    sentences = [
        *_missing(runs, lambda run: run.people, _no_people),
        *_missing(runs, lambda run: run.prototypes, _no_prototypes),
    ]
    shown = plots(drawn, small=len(drawn) == 3)
    return section("people", "People and prototypes", lead, shown, *sentences, *parts)


def _no_people(run: RunRecord) -> str:
    command = _command(run, "--images DIR")
    return (
        f"No people were tested yet. {command}, with two images or more of each person, measures "
        "how compact they are."
    )


def _no_prototypes(run: RunRecord) -> str:
    if run.imported is not None and not run.metrics:
        return "The weights were imported without class weights: there are no prototypes."
    command = _command(run, "--images DIR")
    return f"The prototypes were not measured yet. Any evaluation does, such as {command}."


def _loosest(run: RunRecord, title: str, stored: StoredPeople, *, alone: bool) -> str:
    order = (stored.spread - stored.nearest).argsort()[::-1][:_LOOSEST]
    rows = [
        [
            stored.people[index].replace("_", " "),
            f"{stored.spread[index]:.1f}°",
            f"{stored.nearest[index]:.1f}°",
            stored.nearest_name[index].replace("_", " "),
        ]
        for index in order
    ]
    of_run = "" if alone else f"{run.name}, "
    headings = ["person", "spread", "to the nearest", "who that is"]
    caption = f"{of_run}{title}"
    return details(f"The least compact people: {caption}", table(headings, rows, caption=caption))
