"""The documents say what the code does: their Python runs, and generated pages are fresh."""

import re
from pathlib import Path

import pytest

from experiments import loss_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def run_python(page: Path) -> dict:
    """Runs a page's Python blocks one after another and returns what they define."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    namespace: dict = {"__name__": str(page)}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_python_of_a_page_runs(page: Path) -> None:
    run_python(page)


def test_the_example_of_a_loss_in_a_plain_loop_learns() -> None:
    names = run_python(ROOT / "docs" / "losses.md")
    x, labels, (w, prototypes) = names["x"], names["labels"], names["params"]
    accuracy = ((x @ w @ prototypes.T).argmax(axis=1) == labels).mean()
    assert accuracy > 0.8


def test_the_example_of_adding_a_margin_is_a_loss() -> None:
    names = run_python(ROOT / "CONTRIBUTING.md")
    assert names["losses"].shape == (3,)
    assert names["row"].hyperparameters == {"margin": 0.45, "scale": 64.0}
    assert names["row"].loss.__doc__.startswith("AirFace")


def test_the_table_of_losses_is_fresh() -> None:
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    assert page == loss_table.page(), "run `python experiments/loss_table.py`"
