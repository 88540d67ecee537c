"""The documents say what the code does: Python runs, commands parse, generated pages are fresh."""

import doctest
import functools
import json
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sphereface_jax
from experiments import loss_table, tutorial_figures
from experiments.benchmarks import tables
from sphereface_jax import cli
from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.models import MODELS
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import make_optimizer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def run_python(page: Path) -> dict:
    """Runs a page's Python from top to bottom, its sessions too, and returns what it defines."""
    text = page.read_text(encoding="utf-8")
    names: dict = {"__name__": str(page)}
    for kind, code in re.findall(r"^ *```(python|pycon)\n(.*?)^ *```$", text, re.S | re.M):
        if kind == "python":
            exec(compile(code, str(page), "exec"), names)
        else:
            session = doctest.DocTestParser().get_doctest(code, names, page.name, None, None)
            result = doctest.DocTestRunner().run(session, clear_globs=False)
            assert not result.failed
            names = session.globs
    return names


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_python_of_a_page_runs(page: Path) -> None:
    run_python(page)


def code_blocks(page: Path) -> Iterator[str]:
    """The lines of a page's code, fenced or indented; a line that goes on is one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    is_fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield line.strip()


def shown_commands() -> list[Any]:
    """Every `sphereface ...` of the pages, as a parameter of a test."""
    found = []
    for page, name in zip(PAGES, NAMES, strict=True):
        for line in code_blocks(page):
            if command := re.match(r"(?:\w+=\S+ )*sphereface (.+)", line):
                without_brackets = re.sub(r"\[(--[^]]+)\]", r"\1", command[1])
                words = shlex.split(without_brackets, comments=True)
                found.append(pytest.param(words, id=f"{name}: {line}"))
    return found


@pytest.mark.parametrize("words", shown_commands())
def test_a_command_in_a_page_is_accepted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []
    for spec in cli.app._subcommands.values():

        @functools.wraps(spec.target)
        def record(*args: Any, **options: Any) -> None:
            reached.extend([*args, *options.values()])

        monkeypatch.setattr(spec, "target", record)
    cli.main(words)
    assert reached
    for value in reached:
        if isinstance(value, EvaluateOptions):
            value.check()
        if isinstance(value, TrainConfig):
            assert value.model.name in MODELS
            Objective(value.loss, num_classes=10)
            make_optimizer(value.optimizer, value.steps)


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads((ROOT / "docs" / "notebooks" / "quickstart.ipynb").read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def test_a_script_in_a_page_exists() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert "python experiments/" not in text, f"{page.name}: write python -m experiments.NAME"
        for name in re.findall(r"python -m (experiments[.\w]*\w)", text):
            script = ROOT / f"{name.replace('.', '/')}.py"
            assert script.is_file(), f"{page.name} names {name}"


def test_the_example_of_a_loss_in_a_plain_loop_learns() -> None:
    names = run_python(ROOT / "docs" / "losses.md")
    x, labels, (w, prototypes) = names["x"], names["labels"], names["params"]
    accuracy = ((x @ w @ prototypes.T).argmax(axis=1) == labels).mean()
    assert accuracy > 0.8


def test_the_changelog_and_the_citation_name_this_release() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    section = re.search(r"^## (\S+)(?: \((.+)\))?$", changelog, re.M)
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    cited = re.search(r"^version: (\S+)\ndate-released: (\S+)$", citation, re.M)
    assert cited[1] == sphereface_jax.__version__
    assert section.groups() in [cited.groups(), ("Unreleased", None)]


@pytest.mark.slow
def test_the_table_of_losses_is_fresh() -> None:
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    assert page == loss_table.page(), "run `python -m experiments.loss_table`"


def test_the_benchmarks_are_fresh() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == tables.page(), "run `python -m experiments.benchmarks.tables`"


def test_a_benchmark_that_was_not_run_has_no_section(tmp_path: Path) -> None:
    assert tables.page(tmp_path) == tables.INTRODUCTION


def test_every_part_of_the_package_is_in_the_reference() -> None:
    pages = (page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    blocks = re.findall(r"^```\{modules\} (.+)$", "\n".join(pages), re.M)
    listed = sorted(name for block in blocks for name in block.split())
    parts = {part.name for part in pkgutil.iter_modules(sphereface_jax.__path__)}
    public = {part for part in parts if not part.startswith("_")} - {"cli", "commands"}
    assert listed == sorted(f"sphereface_jax.{part}" for part in public)


def test_the_tutorial_shows_every_picture_that_is_drawn_for_it() -> None:
    shown = re.findall(r"\]\(images/(\S+)\)", (ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    assert sorted(shown) == sorted(tutorial_figures.FIGURES)
    assert all((ROOT / "docs" / "images" / name).is_file() for name in shown)


@pytest.mark.parametrize(("margin", "degrees"), [(1, 45), (2, 30), (3, 22.5), (4, 18)])
def test_the_pictures_show_where_the_margin_lies(margin: int, degrees: float) -> None:
    points = tutorial_figures.on_circle(np.array([degrees - 0.1, degrees + 0.1]))
    prototypes = tutorial_figures.on_circle(np.array([0.0, 90.0]))
    claimed = tutorial_figures.accepted(points, prototypes, margin=margin)
    assert claimed.tolist() == [0, 1 if margin == 1 else -1]


@pytest.mark.slow
@pytest.mark.parametrize("name", tutorial_figures.FIGURES)
def test_a_picture_of_the_tutorial_can_be_drawn(name: str) -> None:
    draw = tutorial_figures.FIGURES[name]
    figure = draw(pixels=24) if draw is tutorial_figures.draw_sphere else draw()
    assert all(axes.lines or axes.images for axes in figure.axes)
