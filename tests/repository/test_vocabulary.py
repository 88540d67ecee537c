"""One vocabulary, JAX's own, in what users read: docstrings, help texts, messages and pages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE, DOCS = REPOSITORY / "sphereface_jax", REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")]
THING = (
    r"(batch|block|channel|class|device|embedding|entry|example|face|folder|group|head|identity"
    r"|image|label|line|list|name|number|object|pair|part|path|person|picture|piece|point|probe|protocol"
    r"|record|row|run|score|shard|slope|step|value|vector|update)"
)
SAY = {
    r"cut along|shared out|[Cc]ut (by|over|in) (M|all|N)\b": "sharded over",
    r"walks? (over|along|through)": "scans, or processes in blocks",
    r"\bown (class|prototype)\b|\bthe own\b": "target class, its prototype",
    r"\bso many\b": "N, or the argument's name",
    r"never saw": "unseen",
    r"(that|which) (is|are) none\b": "invalid, malformed",
    r"\b(is|are) no (longer )?numbers?\b": "NaN or infinite",
    r"(?<![Tt]here )\b(is|are) no (?!longer|more)\w": "is not a",
    r"\bparted by\b": "separated by",
    r"\brivals?\b": "baseline",
    r"\b[Ss]hares? (of (the|all|its|them|a|images)|in [\[(])": "fraction of",
    rf"\b(a|an|one|[Aa] \w+) {THING} an? {THING}\b": "one ... per ...",
    r"\b(bytes|images|pairs|seconds|steps|things|times|examples) an? "
    r"(second|minute|hour|identity|image|device|person|step)\b": "... per ...",
}
"""Words of a private dialect, and what JAX's documentation says."""


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The strings of a module by line: docstrings, attribute docstrings, messages."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def found(texts: Iterator[tuple[int, str]]) -> list[tuple[int, str, str]]:
    """Line, word and what to say instead."""
    return [
        (line, match.group(), instead)
        for line, text in texts
        for words, instead in SAY.items()
        for match in re.finditer(words, " ".join(text.split()))
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_speaks_plainly(path: Path) -> None:
    assert found(texts(path.read_text())) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_speaks_plainly(path: Path) -> None:
    assert found(iter([(1, path.read_text())])) == []


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ('Rows are cut\n    along "data".', "cut along"),
        ("a record that is none", "that is none"),
        ("Prints a line a protocol.", "a line a protocol"),
        ("expected one label an embedding", "one label an embedding"),
        ("images a second", "images a second"),
        ("degrees to the own prototype", "the own"),
    ],
)
def test_the_dialect_is_noticed(words: str, word: str) -> None:
    source = f'def f(x):\n    """Fine."""\n    raise ValueError(f"""{{x}}: {words}""")\n'
    assert word in [word for _, word, _ in found(texts(source))]
