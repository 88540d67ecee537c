"""Kills a run with SIGKILL at random moments, and compares its end with an undisturbed run.

    python -m experiments.kill_and_resume --kills 20

Both train SphereNet-4 with A-Softmax on synthetic faces. The kills fall in a step, while a
checkpoint is being written, and while one is being restored. The moments come from what a run shows
to anyone: the batches that it takes, the temporary folder of a checkpoint, the rewritten
config.json. In the end every array of the two last checkpoints must have the same bits, and the
batches that the weights have seen must be those of the undisturbed run, none lost and none doubled.
Exits with 1 where that is not so.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

Where = Literal["step", "save", "restore"]

NETWORK = [
    *("--data.train=synthetic", "--data.image-size", "56", "48"),
    *("--data.synthetic-identities=100", "--data.synthetic-views=10"),
    *("--model.name=spherenet4", "--model.channels", "16", "32", "64", "128"),
    *("--model.embedding-dim=64", "--batch-size=32", "--optimizer.learning-rate=0.05"),
]
PATIENCE = 1800  # seconds for a run to come to the moment of its death


@dataclass(frozen=True)
class Config:
    """What to try."""

    steps: int = 300
    """Updates of each run."""
    kills: int = 3
    """How often the second run is killed."""
    checkpoint_every: int = 10
    """Steps between two checkpoints."""
    seed: int = 0
    """Of the moments."""
    processes: int = 1
    """Processes that train together; of several, one or all are killed."""


@dataclass
class Run:
    """A run that is started as often as need be.

    Attributes:
      folder: of the run, its printed lines and the batches that it took.
      config: of the experiment.
      processes: of the last start.
    """

    folder: Path
    config: Config
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """The folder that `sphereface train` writes."""
        return self.folder / "run"

    @property
    def printed(self) -> str:
        """What the main process has said since its last start."""
        return (self.folder / "printed-0.txt").read_text()

    def batches(self, process: int = 0) -> list[dict[str, int]]:
        """The batches that a process has taken, of all its starts; a torn last line is left out."""
        path = self.folder / f"batches-{process}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def start(self) -> None:
        """Starts all processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        count, port = self.config.processes, _free_port()
        options = [f"--out={self.out}", f"--steps={self.config.steps}", "--log-every=1"]
        options += [f"--checkpoint-every={self.config.checkpoint_every}", *NETWORK]
        self.processes = []
        for process in range(count):
            together = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={count}"]
            together += [f"--process-id={process}"]
            with (self.folder / f"printed-{process}.txt").open("w") as printed:
                noting = [__file__, "train", str(self.folder / f"batches-{process}.jsonl")]
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *noting, *options, *(together if count > 1 else [])],
                        stdout=printed,
                        stderr=subprocess.STDOUT,
                    )
                )

    def kill(self, victims: list[int]) -> None:
        """Kills some processes with SIGKILL; the others end by themselves, or are killed too."""
        for victim in victims:
            self.processes[victim].kill()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()

    def is_running(self) -> bool:
        """Whether all processes are alive."""
        return all(process.poll() is None for process in self.processes)

    def finish(self) -> None:
        """Starts, and waits for the end of training."""
        self.start()
        codes = [process.wait() for process in self.processes]
        if any(codes):
            sys.exit(f"the run ended with {codes}:\n{self.printed[-4000:]}")


@dataclass(frozen=True)
class Kill:
    """One kill of a run.

    Attributes:
      where: it was to fall.
      resumed: where the run had gone on from; None where it had not said so yet.
      step: it was in.
      victims: the processes killed.
      proof: of the place.
    """

    where: Where
    resumed: int | None
    step: int | None
    victims: list[int]
    proof: str

    def line(self, number: int) -> str:
        """One line for the list of kills."""
        went_on = "–" if self.resumed is None else f"{self.resumed}"
        step = "–" if self.step is None else f"{self.step}"
        who = f"process {', '.join(map(str, self.victims))}"
        return (
            f"{number:>4}  {self.where:<8}{who:<14}went on from {went_on:<6}"
            f"killed in step {step:<6}{self.proof}"
        )


def moments(config: Config) -> Iterator[tuple[Where, random.Random]]:
    """Yields where each kill falls: the first in a step, then all places alike, shuffled."""
    rng = random.Random(config.seed)
    places: list[Where] = ["step", "save", "restore"] * -(-config.kills // 3)
    rest = places[1 : config.kills]
    rng.shuffle(rest)
    yield from ((place, rng) for place in ["step", *rest][: config.kills])


def kill_somewhere(run: Run, where: Where, rng: random.Random) -> Kill:
    """Starts the run and kills it at such a moment."""
    before = len(run.batches())
    claimed = _changed(run.out / "config.json")
    run.start()
    if where == "step":
        target = before + rng.randint(5, 3 * run.config.checkpoint_every)
        wait(run, lambda: len(run.batches()) >= target and _has_checkpoint(run))
        time.sleep(rng.uniform(0, 0.05))
    elif where == "save":
        wait(run, lambda: len(run.batches()) > before)
        for _ in range(rng.randint(1, 3)):
            wait(run, lambda: not _half_written(run))
            wait(run, lambda: bool(_half_written(run)))
        time.sleep(rng.uniform(0, 0.03))
    else:
        wait(run, lambda: _changed(run.out / "config.json") != claimed)
        time.sleep(rng.uniform(0, 0.3))
    everyone = list(range(run.config.processes))
    victims = rng.choice([everyone, [rng.choice(everyone)]])
    run.kill(victims)
    half_written = _half_written(run)
    batches = run.batches()
    proof = {
        "step": f"batch {len(batches) - before} of this start was taken",
        "save": f"left {half_written[0]}" if half_written else "its save had just ended",
        "restore": "had not said yet where it goes on",
    }
    resumed = _resumed_from(run)
    if where == "restore" and resumed is not None:
        proof["restore"] = "had just said where it goes on"
    step = batches[-1]["first"] // batches[-1]["count"] + 1 if len(batches) > before else None
    return Kill(where, resumed, step, victims, proof[where])


def run_killed(run: Run) -> list[Kill]:
    """Trains to the end through all kills, and prints each."""
    kills = []
    for number, (where, rng) in enumerate(moments(run.config), start=1):
        kills.append(kill_somewhere(run, where, rng))
        print(kills[-1].line(number), flush=True)
    run.finish()
    print(
        f" end  went on from {_resumed_from(run)} and reached step {run.config.steps}", flush=True
    )
    return kills


def batches_that_count(batches: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    """What the weights have seen: of each start, the batches before the next start's first one."""
    counting: list[tuple[int, int, int]] = []
    previous = None
    for batch in batches:
        if batch["process"] != previous:
            counting = [seen for seen in counting if seen[0] < batch["first"]]
            previous = batch["process"]
        counting.append((batch["first"], batch["count"], batch["crc"]))
    return counting


def arrays(out: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint of a run, by its path in the state."""
    import jax

    from sphereface_jax.training.checkpoint import Checkpoints
    from sphereface_jax.training.run_folder import read_config
    from sphereface_jax.training.trainer import make_trainer

    with Checkpoints(out / "checkpoints") as checkpoints:
        trainer = make_trainer(read_config(out), checkpoints.progress()["num_classes"])
        state = checkpoints.restore(trainer.like)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def compare(undisturbed: Run, killed: Run) -> bool:
    """Prints whether the two runs ended in the same bits by the same batches."""
    ours, theirs = arrays(killed.out), arrays(undisturbed.out)
    others = [name for name in theirs if ours[name].tobytes() != theirs[name].tobytes()]
    numbers = sum(array.size for array in theirs.values())
    print(
        f"bits: {len(theirs) - len(others)} of {len(theirs)} arrays of the last checkpoint "
        f"({numbers:,} numbers) are equal" + "".join(f"; not {name}" for name in others[:3])
    )
    same_batches = True
    for process in range(killed.config.processes):
        taken = killed.batches(process)
        counting = batches_that_count(taken)
        expected = batches_that_count(undisturbed.batches(process))
        same_batches &= counting == expected
        lost, extra = set(expected) - set(counting), set(counting) - set(expected)
        doubled = len(counting) - len(set(counting))
        print(
            f"batches: {len(taken)} taken by {len({batch['process'] for batch in taken})} starts, "
            f"{len(counting)} count; {len(lost)} lost, {doubled} doubled, {len(extra)} foreign"
        )
    return not others and same_batches


def main(config: Config) -> None:
    """Runs both and compares."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        undisturbed = Run(Path(directory) / "undisturbed", config)
        killed = Run(Path(directory) / "killed", config)
        print(f"seed {config.seed}: {config.kills} kills in {config.steps} steps", flush=True)
        try:
            undisturbed.finish()
            run_killed(killed)
        finally:
            undisturbed.end()
            killed.end()
        same = compare(undisturbed, killed)
    print(f"{'the same' if same else 'NOT THE SAME'}, in {time.monotonic() - start:.0f} s")
    sys.exit(not same)


def train_noting_batches(path: Path, options: list[str]) -> None:
    """`sphereface train`, with a line in a file for each batch that training takes."""
    from sphereface_jax.cli import main as run_command
    from sphereface_jax.training import loop

    make_pipeline = loop.make_pipeline

    def make_noting_pipeline(*arguments: Any, **named: Any) -> NotingPipeline:
        return NotingPipeline(make_pipeline(*arguments, **named), path)

    loop.make_pipeline = make_noting_pipeline  # type: ignore[assignment]
    run_command(["train", *options])


class NotingPipeline:
    """A pipeline that notes the examples of each batch as it hands it out."""

    def __init__(self, pipeline: Any, path: Path):
        self._pipeline = pipeline
        self._file = path.open("a", buffering=1)

    def __next__(self) -> dict[str, np.ndarray]:
        first = self._pipeline.examples_consumed
        batch = next(self._pipeline)
        line = {
            "process": os.getpid(),
            "first": first,
            "count": self._pipeline.examples_consumed - first,
            "crc": zlib.crc32(batch["label"].tobytes(), zlib.crc32(batch["image"].tobytes())),
        }
        self._file.write(json.dumps(line) + "\n")
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


def wait(run: Run, reached: Callable[[], bool]) -> None:
    """Waits until something is so; exits where the run ends before, or takes too long."""
    start = time.monotonic()
    while not reached():
        if not run.is_running():
            sys.exit(f"the run ended before it was killed:\n{run.printed[-4000:]}")
        if time.monotonic() - start > PATIENCE:
            sys.exit(f"the run did not come so far in {PATIENCE} s:\n{run.printed[-4000:]}")
        time.sleep(0.002)


def _has_checkpoint(run: Run) -> bool:
    """Whether one is whole, so that the next start restores something."""
    folder = run.out / "checkpoints"
    return folder.is_dir() and any(name.isdecimal() for name in os.listdir(folder))


def _half_written(run: Run) -> list[str]:
    """The checkpoints that are being written, or were when the run was killed."""
    folder = run.out / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return [name for name in names if "orbax-checkpoint-tmp" in name]


def _resumed_from(run: Run) -> int | None:
    """The step that the run said it goes on from; 0 for one that starts, None before it spoke."""
    said = re.search(r"^(?:Resuming from step (\d+)|Training)", run.printed, re.MULTILINE)
    return None if said is None else int(said[1] or 0)


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train_noting_batches(Path(sys.argv[2]), sys.argv[3:])
    else:
        main(tyro.cli(Config, description=__doc__))
