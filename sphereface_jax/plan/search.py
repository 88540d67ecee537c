"""Tries layouts of a run, and orders them.

Heads alone come first: the step around next to no network compiles in seconds. Where even that does
not fit, neither does the whole. The best ones left are then compiled whole.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sphereface_jax import __version__
from sphereface_jax.data.files import write_json
from sphereface_jax.plan.targets import ENVIRONMENT, Target, compiler_versions
from sphereface_jax.training.config import TrainConfig, to_dict
from sphereface_jax.training.state import PROTOTYPE_MULTIPLE

BLOCKS = (None, 4096)
SAMPLE_RATES = (1.0, 0.1)
PARTS = (1, 4)
WHOLE_STEPS = 3
RULE = (
    "all classes before a sample of them, which is tried only where all do not fit; then the least "
    "time of a step by arithmetic, memory and wire one after another; then the least memory"
)


def ask_compiler(
    config: TrainConfig,
    num_classes: int,
    target: Target,
    *,
    head_alone: bool = False,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Compiles a step in a process of its own and returns what `compiled.describe_step` says.

    Args:
      config: of the run.
      num_classes: identities.
      target: the devices.
      head_alone: whether to compile the head without the network.
      timeout: seconds; None: as long as it takes.

    Returns:
      What `describe_step` returns, of the head if that is asked for.

    Raises:
      ValueError: the step cannot be trained on the target.
      RuntimeError: the compiler failed.
      TimeoutError: it took longer than `timeout` seconds.
    """
    order = {
        "config": to_dict(config),
        "num_classes": num_classes,
        "target": target.name,
        "head_alone": head_alone,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sphereface_jax.plan.compiled"],
            input=json.dumps(order),
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{target.name}: not compiled in {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"plan: the compiler for {target.name} failed: {last[:300]}")
    said = json.loads(done.stdout.splitlines()[-1])
    if "error" in said:
        raise ValueError(said["error"])
    return said


def layouts(config: TrainConfig, devices: int) -> Iterator[TrainConfig]:
    """The layouts to try: all that the devices and the batch allow, the plainest first.

    Args:
      config: of the run; its sample rate, parts and blocks are tried too.
      devices: how many.

    Yields:
      The config with another mesh, block of classes, sample rate and number of parts.
    """
    for rate in sorted({config.loss.sample_rate, *SAMPLE_RATES}, reverse=True):
        for parts in sorted({config.accumulate, *PARTS}):
            for model in (2**power for power in range(9)):
                if devices % model or PROTOTYPE_MULTIPLE % model:
                    continue
                if config.batch_size % (devices * parts):
                    continue
                for block in dict.fromkeys((*BLOCKS, config.loss.class_block)):
                    loss = dataclasses.replace(config.loss, class_block=block, sample_rate=rate)
                    mesh = dataclasses.replace(config.mesh, data=-1, model=model)
                    yield dataclasses.replace(config, loss=loss, mesh=mesh, accumulate=parts)


def by_rank(found: tuple[TrainConfig, dict[str, Any]]) -> tuple[float, ...]:
    """The rule that orders layouts, best first; `RULE` says it in words.

    Args:
      found: a layout, and what `ask_compiler` returned of its step, which fits.

    Returns:
      Numbers to compare one after another, smaller is better.
    """
    config, said = found
    return (-config.loss.sample_rate, sum(said["seconds_at_least"].values()), said["total"])


def describe(config: TrainConfig) -> str:
    """The options of a layout, as `train` takes them."""
    options = [f"--mesh.model {config.mesh.model}"]
    if config.loss.class_block is not None:
        options.append(f"--loss.class-block {config.loss.class_block}")
    if config.loss.sample_rate < 1:
        options.append(f"--loss.sample-rate {config.loss.sample_rate:g}")
    if config.accumulate > 1:
        options.append(f"--accumulate {config.accumulate}")
    return " ".join(options)


class Compilers:
    """Asks compilers, and keeps what they said.

    Args:
      num_classes: identities.
      target: what to compile for.
      seconds: give up after this many.
      cache: a file of JSON that keeps the answers; None: none.
      report: is given a line for each answer.
    """

    def __init__(
        self,
        num_classes: int,
        target: Target,
        *,
        seconds: float,
        cache: Path | None,
        report: Callable[[str], None],
    ):
        self.num_classes, self.target, self.cache, self.report = num_classes, target, cache, report
        self.about = [num_classes, target.name, __version__]
        self.about += compiler_versions(target.chip.platform).values()
        self.end = time.monotonic() + seconds
        self.known: dict[str, Any] = {}
        if cache is not None and cache.is_file():
            self.known = json.loads(cache.read_text(encoding="utf-8"))

    @property
    def seconds_left(self) -> float:
        """Until the end of the search."""
        return self.end - time.monotonic()

    def ask(self, layout: TrainConfig, *, head_alone: bool) -> dict[str, Any] | None:
        """What is known of a step; compiled if it was not asked before.

        Args:
          layout: the config of the run with this layout.
          head_alone: whether to compile the head without the network.

        Returns:
          What `ask_compiler` returns, also of what cannot be trained ("fits" is false), or None
          where there is no time to learn it.
        """
        about = [to_dict(layout) | {"out": ""}, head_alone, *self.about]
        key = json.dumps(about, sort_keys=True)
        if key not in self.known:
            if self.seconds_left <= 0:
                return None
            try:
                self.known[key] = ask_compiler(
                    layout,
                    self.num_classes,
                    self.target,
                    head_alone=head_alone,
                    timeout=self.seconds_left,
                )
            except ValueError as error:
                self.known[key] = {"fits": False, "compiler": str(error)}
            except TimeoutError:
                return None
            if self.cache is not None:
                write_json(self.cache, self.known)
        said = self.known[key]
        what = "head" if head_alone else "whole step"
        verdict = "fits" if said["fits"] else "does not fit"
        size = f"{said['total'] / 2**30:.2f} GiB a device" if "total" in said else said["compiler"]
        self.report(f"{what}: {describe(layout)}: {size}, {verdict}")
        return said


def search(config: TrainConfig, compilers: Compilers) -> list[tuple[TrainConfig, dict[str, Any]]]:
    """Looks for the whole steps that fit.

    Args:
      config: of the run; its mesh.model, class-block, sample-rate and accumulate are varied.
      compilers: to ask; half of their time goes to heads alone.

    Returns:
      Layouts and what is known of each, best first.
    """
    heads: list[tuple[TrainConfig, dict[str, Any]]] = []
    half = compilers.seconds_left / 2
    for layout in layouts(config, compilers.target.devices):
        if heads and layout.loss.sample_rate < heads[0][0].loss.sample_rate:
            break  # a sample is for where all classes do not fit
        if heads and compilers.seconds_left < half:
            break
        said = compilers.ask(layout, head_alone=True)
        if said is not None and said["fits"]:
            heads.append((layout, said))
    whole: list[tuple[TrainConfig, dict[str, Any]]] = []
    for layout, _ in sorted(heads, key=by_rank):
        said = compilers.ask(layout, head_alone=False) if len(whole) < WHOLE_STEPS else None
        if said is None:
            break
        if said["fits"]:
            whole.append((layout, said))
    return sorted(whole, key=by_rank)
