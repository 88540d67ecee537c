"""One vocabulary, JAX's own, in what users read: public docstrings, help texts and messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sphereface_jax"
SAY = {
    r"cut along|shared out": "sharded over",
    r"walks? (over|along|through)": "scans, or processes in blocks",
    r"\bown class": "target class",
    r"\bso many\b": "N, or the argument's name",
    r"never saw": "unseen",
    r"that (is|are) none\b": "invalid, malformed",
    r"\bno number\b": "NaN or infinite",
    r"\bparted by\b": "separated by",
    r"\brivals?\b": "baseline",
    r"\b[Ss]hare of (the|all|its|them|a)\b": "fraction of",
}
"""Words of a private dialect, and what JAX's documentation says."""
SPEAKERS = {"say", "warn", "print"}


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings, attribute docstrings and messages of a module, by line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                yield node.lineno, node.value.value
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in SPEAKERS or name.endswith("Error"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.lineno, part.value


def found(source: str) -> list[tuple[int, str, str]]:
    """Line, word and what to say instead."""
    return [
        (line, match.group(), instead)
        for line, text in texts(ast.parse(source))
        for words, instead in SAY.items()
        for match in re.finditer(words, " ".join(text.split()))
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_speaks_plainly(path: Path) -> None:
    assert found(path.read_text()) == []


def test_the_dialect_is_noticed() -> None:
    source = '''
def f(x):
    """Rows are cut
    along "data"."""
    if x:
        raise ValueError(f"{x}: a record that is none")
'''
    assert [word for _, word, _ in found(source)] == ["cut along", "that is none"]
