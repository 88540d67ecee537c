"""A run's folder: who owns it, which config it belongs to, and its files.

RUN/config.json         the config, written before the first step
RUN/metrics.jsonl       one object a logged step
RUN/validation.jsonl    one object a score on held-out identities
RUN/checkpoints/        of Orbax
RUN/tensorboard/        event files
RUN/passed_over.tsv     what lies among the images and is not used, and why, if anything
RUN/evaluations/        what `sphereface evaluate` measured
RUN/MODEL_CARD.md       what the run knows about itself
RUN/result.json         the last step's metrics; its presence says that the run is finished
"""

import fcntl
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sphereface_jax.data.files import AtomicFile
from sphereface_jax.data.text import IN_PLAIN_LETTERS
from sphereface_jax.training.config import TrainConfig, from_dict, resume_conflicts, to_dict
from sphereface_jax.training.distributed import is_main

logger = logging.getLogger(__name__)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, `printable`, under a temporary name, then renames it.

    Args:
      path: the file, replaced if it is there.
      text: its content.
    """
    with AtomicFile(path) as file:
        file.write(text.encode("utf-8", IN_PLAIN_LETTERS))


def write_json(path: Path, values: Any) -> None:
    """Writes JSON atomically.

    Args:
      path: the file, replaced if it is there.
      values: what JSON can hold.
    """
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      ValueError: the file is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error


def read_json_if_there(path: Path) -> Any:
    """Reads JSON as `read_json` does; None where there is no such file."""
    return read_json(path) if path.is_file() else None


def file_name(title: str) -> str:
    """A title as the name of a file: letters, digits, `_`, `-` and dots inside, 100 at most."""
    return re.sub(r"[^\w.-]", "_", title).strip(".")[:100]


def read_config(run: Path) -> TrainConfig:
    """Reads the config of a run.

    Raises:
      FileNotFoundError: the folder holds no run.
    """
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run}: expected a run's folder with config.json in it; "
            "`sphereface train --out DIR` makes one"
        )
    return from_dict(TrainConfig, read_json(path), where=str(path))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON object a line; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class RunFolder:
    """A run's folder, held by one run at a time for as long as the context lasts.

    Of several processes that train together, the main one holds the folder and writes.

    The lock is the kernel's (flock), so that a killed process never leaves it behind. Some network
    file systems have none; there the run starts all the same.

    Args:
      config: of the run.
      warn: told in one line that there is no lock.

    Raises:
      ValueError: another process trains there, or the folder holds a run of another config.
    """

    def __init__(self, config: TrainConfig, *, warn: Callable[[str], None] = logger.warning):
        self._warn = warn
        self.path = Path(config.out).expanduser()
        self.config = config
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.validation = self.path / "validation.jsonl"
        self.result = self.path / "result.json"

    def check(self) -> None:
        """Refuses a folder of something else or of another config; nothing is written.

        Raises:
          ValueError: it is such a folder.
        """
        self._refuse_foreign_folder()
        self._refuse_another_config()

    def __enter__(self) -> Self:
        self.check()
        if not is_main():
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(
                f"{self.path}: another process trains in this folder; "
                "wait for it, or give another --out"
            ) from error
        except OSError as error:
            self._warn(
                f"{self.path}: files cannot be locked here ({error.strerror}); a second run in "
                "this folder will not be noticed"
            )
        self._refuse_another_config()
        write_json(self.path / "config.json", to_dict(self.config))
        for left in self.path.glob(".*.tmp"):  # by a process that was killed while writing
            left.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if is_main():
            self._lock.close()

    def _refuse_foreign_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder for --out, got a file")
        known = {"config.json", ".lock"}
        if self.path.is_dir():
            names = {entry.name for entry in self.path.iterdir()}
            if names and not names & known:
                raise ValueError(
                    f"{self.path}: expected an empty folder or a run for --out, got other files "
                    f"({sorted(names)[0]}); give another --out"
                )

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.json").is_file()

    @property
    def _has_checkpoint(self) -> bool:
        return any(entry.name.isdigit() for entry in self.checkpoints.glob("*"))

    def _refuse_another_config(self) -> None:
        # A run that stopped before its first checkpoint learnt nothing that could be mixed up.
        if not (self.is_begun and self._has_checkpoint):
            return
        changed = resume_conflicts(self.config, read_config(self.path))
        if changed:
            raise ValueError(
                f"{self.path}: this folder holds a run of another config ({'; '.join(changed)}); "
                "give another --out, or the options of that run to go on with it"
            )

    def cut_back(self, last_step: int) -> None:
        """Drops what was logged after the step that training resumes from."""
        if not is_main():
            return
        for path in (self.metrics, self.validation):
            if path.is_file():
                kept = [record for record in read_records(path) if record["step"] <= last_step]
                write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
