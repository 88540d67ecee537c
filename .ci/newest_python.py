"""Tests the losses, the heads, the networks and a step on the newest Python that is at hand.

The project's environment has the newest JAX that its Python gets; a newer Python gets a newer one.
An environment in .cache/ has both, and the newest Flax. `make newest` runs this.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = Path(".cache/newest")
TESTS = [
    "tests/losses/test_dense.py",
    "tests/losses/test_losses.py::test_loss_and_gradients_equal_the_oracle_s",
    "tests/losses/test_blockwise.py::test_whatever_has_a_gradient_has_the_same",
    "tests/models/test_models.py::test_bfloat16_keeps_embeddings_and_statistics_float32",
    "tests/models/test_models.py::test_statistics_are_gathered_checkpointed_and_resumed",
    "tests/training/test_training.py::test_what_a_run_leaves_behind",
    "tests/training/test_training.py::test_a_step_compiles_once_and_never_moves_the_padding",
]


def pythons() -> dict[tuple[int, ...], Path]:
    """Every python3.N on the path, and of pyenv, that runs."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    found = {}
    for path in (path for folder in folders for path in folder.glob("python3.*")):
        if re.fullmatch(r"python3\.\d+", path.name):
            # A shim of pyenv has a name and may have no Python behind it.
            program = "import sys; print(*sys.version_info[:3])"
            said = subprocess.run([path, "-c", program], capture_output=True, text=True)
            if said.returncode == 0:
                found[tuple(map(int, said.stdout.split()))] = path
    return found


def main() -> None:
    """Makes the environment and runs the tests; says why where it cannot."""
    newest, python = max(pythons().items(), default=((), None))
    if newest[:2] <= sys.version_info[:2]:
        print(f"No Python newer than {sys.version.split()[0]} is here: nothing else to test.")
        return
    run = functools.partial(subprocess.run, cwd=REPOSITORY)
    made = ["make", f"VENV={ENVIRONMENT}", f"PYTHON={python}", f"{ENVIRONMENT}/.runtime"]
    tools = [f"{ENVIRONMENT}/bin/python", "-m", "pip", "install", "--quiet"]
    tools += ["hypothesis", "pytest", "pytest-xdist"]
    name = f"Python {'.'.join(map(str, newest))}"
    # "no" is how a variable says --no-compile: https://pip.pypa.io/en/stable/topics/configuration
    variables = os.environ | {"UV_PYTHON": str(python), "PIP_NO_COMPILE": "no"}
    if any(run(command, env=variables).returncode for command in (made, tools)):
        print(f"{name} is here, but JAX, Flax or the others could not be installed: not tested.")
        return
    versions = "import jax, flax; print('JAX', jax.__version__, 'Flax', flax.__version__)"
    print(name, flush=True)
    run([f"{ENVIRONMENT}/bin/python", "-c", versions], check=True)
    raise SystemExit(run([f"{ENVIRONMENT}/bin/python", "-m", "pytest", *TESTS]).returncode)


if __name__ == "__main__":
    main()
