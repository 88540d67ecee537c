"""The `sphereface` command, or one line on what to install where its packages are missing."""

import sys


def main() -> None:
    """Runs the command line, which needs the extra `train`; exits with code 2 without it."""
    if sys.argv[1:] == ["--version"]:
        import jax

        import sphereface_jax

        print(f"sphereface_jax {sphereface_jax.__version__}, jax {jax.__version__}")
        return
    try:
        from sphereface_jax import cli

        cli.main()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "sphereface_jax":
            raise
        print(
            f"sphereface: expected the package {error.name}, which is not installed; "
            "`pip install '.[train]'` in the folder of this project brings what the command needs",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
