"""The house keeps its floors: imports go down only, and the top import stays light."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import sphereface_jax

PACKAGE = Path(__file__).resolve().parents[2] / "sphereface_jax"

# What each part of the package may import from the package. The loss floors, models, data and
# evaluation know nothing of each other or of training.
ALLOWED = {
    "_checks": set(),
    "geometry": set(),
    "schedules": set(),
    "compilation": set(),
    "_console": {"data"},
    "margins": {"_checks", "geometry"},
    "heads": {"_checks", "geometry", "margins"},
    "losses": {"_checks", "geometry", "margins", "heads"},
    "models": {"_checks", "compilation"},
    "data": {"_checks"},
    "evaluation": {"_checks", "geometry"},
    "tasks": {"_checks", "geometry", "data", "evaluation"},
    "interop": {"models", "data"},
    "testing": set(),
    "__init__": {"geometry", "losses", "margins", "schedules"},
    "reports": {"data", "evaluation", "losses"},
    "embedding": {"compilation", "data"},
    "training": {
        *("_checks", "geometry", "schedules", "compilation", "heads", "losses", "models"),
        *("_console", "data", "evaluation", "embedding"),
    },
    "plan": {"compilation", "data", "training"},
    "references": {"_checks", "data", "evaluation", "training"},
    "pretrained": {"_checks", "data", "interop", "training"},
    "embedder": {"_checks", "data", "embedding", "pretrained", "training"},
    "commands": {
        *("_checks", "compilation", "losses", "models", "data", "evaluation", "tasks", "interop"),
        *("_console", "reports", "embedding", "training", "plan", "references"),
        *("pretrained", "embedder"),
    },
    "cli": {"_console", "commands", "data", "plan", "training"},
    "__main__": {"cli"},
}
HEAVY = (
    *("flax", "optax", "grain", "orbax", "tensorflow_datasets"),
    *("cv2", "matplotlib", "plotly", "tyro"),
)


def module_imports(path: Path) -> set[str]:
    """Every module, and every name out of one, that a file imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; write the package's name out"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def package_imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, by their first name."""
    names = [name.split(".") for name in module_imports(path)]
    found = {parts[1] for parts in names if parts[0] == PACKAGE.name and len(parts) > 1}
    return found - {"__version__"}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_lower_floors(part: str) -> None:
    files = list((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    for path in files:
        imported = package_imports(path) - {part}
        assert imported <= ALLOWED[part], f"{path.name} imports {imported - ALLOWED[part]}"


def test_the_floors_are_all_there_and_in_order() -> None:
    parts = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    assert {part.removesuffix(".py") for part in parts} == set(ALLOWED)
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises on a circle


def test_no_module_needs_itself() -> None:
    """An import put off into a function counts: it may be there for its time, not for a circle."""
    module = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__"
    }
    imported = {name: module_imports(path) & set(module) for name, path in module.items()}
    graphlib.TopologicalSorter(imported).prepare()


def test_the_top_import_is_light() -> None:
    program = f"import sys, sphereface_jax; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# Without the extra `train`: an import of what it brings fails as that of an absent package does.
BLOCKED = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
"""


def test_the_command_without_its_packages_says_what_to_install() -> None:
    program = f"{BLOCKED}\nfrom sphereface_jax.__main__ import main\nmain()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        "sphereface: expected the package tyro, which is not installed; `pip install '.[train]'` "
        "in the folder of this project brings what the command needs\n"
    )


def test_the_version_is_said_without_the_packages_too() -> None:
    program = f"{BLOCKED}\nsys.argv[1:] = ['--version']\n"
    program += "from sphereface_jax.__main__ import main\nmain()"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout.startswith(f"sphereface_jax {sphereface_jax.__version__}, jax 0.")


def test_the_losses_need_none_of_the_training_packages() -> None:
    program = f"{BLOCKED}\nimport sphereface_jax, sphereface_jax.compilation"
    subprocess.run([sys.executable, "-c", program], check=True)
