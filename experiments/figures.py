"""Draws every table and figure of the experiments from their results.

    python -m experiments.figures

reads experiments/results/*.json and writes docs/results.md and docs/images/. Nothing on that page
is typed. The spheres that turn, sphere3d_cpu.html, hold all of plotly and are drawn anew rather
than kept in the repository.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from experiments import plots, sphere_figure, tables
from experiments.pages import HERE, IMAGES, RESULTS, Results, machine, table, write
from sphereface_jax.data.files import read_json


@dataclass(frozen=True)
class Section:
    """How the results of an experiment are shown.

    Attributes:
      title: its heading.
      said: a sentence or two on what is shown.
      command: what measured it; PRESET stands for the preset.
      table: from results to Markdown.
      figures: from the end of a picture's name, suffix and all, to what draws it.
    """

    title: str
    said: str
    command: str
    table: Callable[[Results], str]
    figures: Mapping[str, Callable[[Results, Path], None]]


def study(title: str, said: str, name: str, first: str, *, curves: bool = False) -> Section:
    """The section of an experiment of run_study."""
    figures = {".svg": plots.draw_study} | ({"_curves.svg": plots.draw_curves} if curves else {})
    command = f"python -m experiments.{name} --preset PRESET"
    return Section(title, said, command, lambda results: tables.study(results, first), figures)


SECTIONS = {
    "sphere3d": Section(
        "What margins look like",
        "Six people, three dimensions, one sphere for each m; under each the angles between two "
        "images of one person and of two people. `python -m experiments.figures` also draws "
        "docs/images/sphere3d_PRESET.html, where they can be turned.",
        "python -m experiments.sphere3d --preset PRESET",
        tables.spheres,
        {
            ".svg": sphere_figure.draw_still,
            ".png": sphere_figure.draw_still,
            ".html": sphere_figure.draw_turning,
        },
    ),
    "margins": study(
        "Margins", "Softmax, and A-Softmax with m = 1 to 4, at one budget.", "margins", "loss"
    ),
    "lambda_schedules": study(
        "Schedules of λ",
        "A-Softmax with m = 4; no gradient is clipped. In the cpu preset a late λ comes down to 2, "
        "so that floors of 1 and 0 are one.",
        "lambda_schedules",
        "schedule",
        curves=True,
    ),
    "gradients": study(
        "Gradients",
        "One loss, three gradients: see [Losses](losses.md).",
        "gradients",
        "gradient",
        curves=True,
    ),
    "losses": study(
        "The family",
        "Every loss with its own margin on one network at one budget (in the cpu preset SFNet-4 "
        "with batch normalisation, scale 16 where a loss has one): no contest of the losses at "
        "their best.",
        "losses",
        "loss",
    ),
    "depth": study("Depth", "One network by its number of convolutions.", "depth", "network"),
    "casia_lfw_ytf": Section(
        "The paper's recipe",
        "Training, then every benchmark whose data were there.",
        "python -m experiments.casia_lfw_ytf --preset PRESET",
        tables.benchmarks,
        {},
    ),
    "accuracy": Section(
        "Against plain PyTorch",
        "The same network, weights, batches and steps, here and in a plain PyTorch loop with the "
        "reference A-Softmax.",
        "python -m experiments.benchmarks.accuracy --preset PRESET",
        tables.goals,
        {".svg": plots.draw_accuracy},
    ),
    "scale_classes": Section(
        "A million classes",
        "Whole training steps, network, head and optimiser, with each way to hold the classes.",
        "python -m experiments.scale_classes --preset PRESET",
        tables.classes,
        {".svg": plots.draw_classes},
    ),
}
PRESETS = ("cpu", "faces", "paper")


def measured() -> dict[str, tuple[Section, str, Results]]:
    """All results there are that a section shows, by the name of their file."""
    found = {}
    for name, section in SECTIONS.items():
        for preset in PRESETS:
            path = RESULTS / f"{name}_{preset}.json"
            if path.is_file():
                found[path.stem] = section, preset, read_json(path)
    return found


def chapter(name: str, section: Section, preset: str, results: Results) -> str:
    """The Markdown of one file of results."""
    exam = f" Scored on {results['exam']}." if "exam" in results else ""
    took = f"It took {results['seconds']:,.0f} s."
    parts = [
        f"## {section.title} ({preset})",
        section.said.replace("PRESET", preset) + exam,
        f"`{section.command.replace('PRESET', preset)}`. {machine(results)} {took}",
        *(
            f"![{section.title}](images/{name}{end})"
            for end in section.figures
            if end.endswith(".svg")
        ),
        section.table(results),
    ]
    return "\n\n".join(parts)


def published() -> str:
    """The table of others' numbers."""
    content, header = read_json(HERE / "published.json"), ("setting", "test", "number", "source")
    rows = [[row[column] for column in header] for row in content["rows"]]
    shown = table(header, rows, numbers=False)
    return f"## Published by others\n\n{content['note']}\n\n{shown}"


def page(found: Mapping[str, tuple[Section, str, Results]]) -> str:
    """The text of docs/results.md."""
    opening = (
        "# Results\n\nWritten by `python -m experiments.figures` from experiments/results/; do not "
        "edit. Times are not measurements of speed, for the machine had other work; see "
        "[Benchmarks](benchmarks.md) for those. ± is the deviation of the ten folds of a test: a "
        "smaller difference is none."
    )
    chapters = [chapter(name, *each) for name, each in found.items()]
    return "\n\n".join([opening, *chapters, published()]) + "\n"


def main() -> None:
    """Writes the page and its figures."""
    matplotlib.rcParams["axes.titlesize"] = 10
    found = measured()
    for name, (section, _, results) in found.items():
        for end, draw in section.figures.items():
            draw(results, IMAGES / f"{name}{end}")
            print(IMAGES / f"{name}{end}")
    write("results.md", page(found))


if __name__ == "__main__":
    main()
