"""A public function of two or more parameters says what each is, what returns and what it raises.

Left out: overloads, whose implementation is described; functions within a function; parameters of a
command that stand for the fields of a class, which describe themselves; and a method that a class
of the same module, such as a protocol, describes under the same name and parameters: it keeps that
contract and need not say it again.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sphereface_jax"
FIELDS = "arg(name='')"
"""How a command says that a parameter stands for its fields."""


class Public(NamedTuple):
    """A function under its name in the module, and its parameters without self."""

    name: str
    node: ast.FunctionDef
    parameters: list[str]


def public(body: list[ast.stmt], owner: str = "") -> Iterator[Public]:
    """The public functions of a module, and the methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{owner}{node.name}.")
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        decorators = {re.split(r"[.(]", ast.unparse(each))[-1] for each in node.decorator_list}
        if "overload" in decorators:
            continue
        first = [*node.args.posonlyargs, *node.args.args]
        first = first[1:] if owner and "staticmethod" not in decorators else first
        rest = [node.args.vararg, *node.args.kwonlyargs, node.args.kwarg]
        parameters = [
            each.arg
            for each in (*first, *rest)
            if each and not (each.annotation and FIELDS in ast.unparse(each.annotation))
        ]
        if len(parameters) > 1:
            yield Public(owner + node.name, node, parameters)


def raised(node: ast.AST) -> Iterator[str]:
    """The errors that a body makes, not those of functions within; "" for one made elsewhere."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(each, ast.Raise) and each.exc:
            error = each.exc.func if isinstance(each.exc, ast.Call) else each.exc
            name = error.id if isinstance(error, ast.Name) and error.id[0].isupper() else ""
            if name != "AssertionError":  # which no caller is meant to meet
                yield name
        yield from raised(each)


def sections(docstring: str) -> dict[str, list[str]]:
    """The names that each section of a docstring explains, in order."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        if match := re.fullmatch(r"([A-Z]\w+):", line):
            names = found.setdefault(match[1], [])
        elif match := re.match(r"  \*{0,2}(\w+): ", line):
            names.append(match[1])
    return found


def lacking(function: Public) -> list[str]:
    """What a function's docstring leaves unsaid."""
    found = sections(ast.get_docstring(function.node) or "")
    faults = []
    if found.get("Args") != function.parameters:
        faults.append(f"Args: expected {function.parameters}, found {found.get('Args')}")
    returns = function.node.returns
    if returns and ast.unparse(returns) != "None" and not found.keys() & {"Returns", "Yields"}:
        faults.append("no Returns")
    errors = set(raised(function.node))
    if errors and "Raises" not in found:
        faults.append("no Raises")
    elif unnamed := errors - {"", *found.get("Raises", [])}:
        faults.append(f"Raises: {', '.join(sorted(unnamed))} missing")
    return faults


def undescribed(source: str) -> dict[str, list[str]]:
    """The public functions of a module that leave something unsaid, and what."""
    functions = list(public(ast.parse(source).body))
    faults = {each.name: lacking(each) for each in functions}
    contracts = [
        (each.node.name, each.parameters)
        for each in functions
        if "." in each.name and not faults[each.name]
    ]
    return {
        each.name: faults[each.name]
        for each in functions
        if faults[each.name]
        and not ("." in each.name and (each.node.name, each.parameters) in contracts)
    }


def modules() -> list[Path]:
    """The package's modules without a leading underscore in their path."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not re.search(r"(^|/)_(?!_)", path.relative_to(PACKAGE).as_posix())
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_are_described(path: Path) -> None:
    assert undescribed(path.read_text()) == {}


WHOLE = '''
def scale(x, *rest, by: float, **more) -> float:
    """Scales.

    Args:
      x: any shape.
      *rest: ignored.
      by: above 0.
      **more: ignored.

    Returns:
      The same shape.

    Raises:
      ValueError: if by is not above 0.
    """
    if by <= 0:
        raise ValueError(by)
    return x * by
'''


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("      by: above 0.\n", ""), "Args: expected"),
        (("      by: above 0.", "      factor: above 0."), "Args: expected"),
        (("Returns", "Gives"), "no Returns"),
        (("Raises", "Fails"), "no Raises"),
        (("raise ValueError", "raise TypeError"), "Raises: TypeError missing"),
    ],
)
def test_what_is_unsaid_is_found(change: tuple[str, str], fault: str) -> None:
    assert undescribed(WHOLE) == {}
    (faults,) = undescribed(WHOLE.replace(*change)).values()
    assert [each for each in faults if each.startswith(fault)] == faults


def test_a_method_may_keep_a_contract() -> None:
    method = WHOLE.replace("def scale(", "def scale(self, ").replace("\n", "\n    ")
    undocumented = "class Other:\n    def scale(self, x, *rest, by, **more) -> float: ...\n"
    assert undescribed(undocumented) != {}
    assert undescribed(f"class Contract:{method}\n{undocumented}") == {}
