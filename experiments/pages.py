"""What the scripts that write pages of docs/ share: where things lie, and tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sphereface_jax.data.files import atomic_file

HERE = Path(__file__).resolve().parent
DOCS, RESULTS = HERE.parent / "docs", HERE / "results"
IMAGES = DOCS / "images"
Results = Mapping[str, Any]


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: bool = True) -> str:
    """A Markdown table without the last line's end.

    Args:
      header: of the columns.
      rows: of cells.
      numbers: whether all columns but the first are to the right.
    """
    header = list(header)
    rule = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *escaped))


def machine(*several: Results) -> str:
    """The machine of results files, in a sentence."""
    info = several[0]["machine"]
    if isinstance(info, str):
        return f"Machine: {info}."
    busy = [
        "as a real-time process beside other work"
        if results["machine"].get("real_time", False)
        else f"at load {results['machine']['load_before']}"
        for results in several
    ]
    return (
        f"Machine: {info['processor']}, {info['cores']} cores, {info['memory_gib']} GiB; "
        f"JAX {info['jax']} on {info['devices']} × {info['device']}; run "
        f"{', '.join(dict.fromkeys(busy))}."
    )


def write(name: str, text: str) -> None:
    """Writes a page of docs/ and says where."""
    with atomic_file(DOCS / name) as file:
        file.write(text.encode())
    print(DOCS / name)
