"""What `sphereface evaluate` does: a benchmark's images to vectors, protocols, a table and JSON."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say, say_found, warn
from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.commands.likelihood import FILE as LIKELIHOOD
from sphereface_jax.commands.likelihood import Measured, measure, say_measured
from sphereface_jax.commands.task_choice import Progress, choose_tasks
from sphereface_jax.commands.vector_sources import (
    RunVectors,
    StoredVectors,
    VectorSource,
    refuse_missing,
)
from sphereface_jax.data.files import write_json
from sphereface_jax.data.lfw_list import read_groups
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.calibration import TooFewPairsError
from sphereface_jax.evaluation.geometry_measures import GeometryResult, prototype_spread
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.statistics import mcnemar, verification_intervals
from sphereface_jax.evaluation.verification import VerificationResult
from sphereface_jax.reports.tables import print_baselines, print_results
from sphereface_jax.tasks.people import PeopleTask
from sphereface_jax.tasks.task import Matched, Task

_ACCURACY = ("accuracy_10_fold", "accuracy_std", "optimistic")


@dataclasses.dataclass
class Scored:
    """A task's results, and the statistics of those that verify pairs, by protocol."""

    task: Task
    vectors: FaceVectors
    matched: Matched
    results: dict[str, Result]
    intervals: dict[str, dict[str, tuple[float, float]]] = dataclasses.field(default_factory=dict)
    against: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    measured: Measured | None = None

    @property
    def verified(self) -> dict[str, VerificationResult]:
        """The results that decide pairs."""
        return {
            name: result
            for name, result in self.results.items()
            if isinstance(result, VerificationResult)
        }


def evaluate(options: EvaluateOptions, *, console: Console) -> None:
    """Scores a run or stored vectors by the protocols that the lists allow, or those named.

    Prints one table, writes the JSON, and calibrates a run that scored pairs of images.

    Args:
      options: what to do.
      console: where to print.

    Raises:
      FileNotFoundError: a file or folder is missing, or an image of a list.
      ValueError: a file is damaged, or options do not go together.
    """
    options.check()
    stored = None if options.embeddings is None else StoredVectors(options.embeddings)
    with _search_bar(console) as progress:
        chosen = choose_tasks(options, stored, progress)
        source = stored or _open_run(options, console)
        for task, _ in chosen:
            say_found(console, task)
        baseline = (
            None if options.against is None else _open_baseline(options.against, options, console)
        )
        tasks = [task for task, _ in chosen]
        scored = [
            Scored(task, vectors, matched, _score(task, matched, names))
            for (task, names), (vectors, matched) in zip(
                chosen, match_tasks(source, tasks, options.allow_missing), strict=True
            )
        ]
    _add_intervals(scored)
    if isinstance(source, RunVectors) and source.run.num_classes:
        _add_prototypes(scored, source)
    if baseline is not None:
        _add_baselines(scored, source, baseline, options.allow_missing)
    _add_evidence(scored, source, options)
    numbers = {**to_json(scored, source), "align": options.align}
    if options.json is not None:
        write_json(options.json, numbers)
    # All is kept before any of it is shown: what a terminal cannot take costs no work.
    lines: list[str] = []
    if isinstance(source, RunVectors):
        lines = _calibrate(scored, source, options)
        _keep(scored, source, numbers)
    _print(scored, numbers["protocols"], console)
    if baseline is not None:
        title = f"{source.name} (A) against {baseline.name} (B)"
        print_baselines(numbers["protocols"], console, title=title)
    for each in scored:
        if each.measured is not None:
            say_measured(each.measured, console)
    for line in lines:
        say(console, line)
    if isinstance(source, RunVectors):
        from sphereface_jax.commands.report import report

        report([source.run.path], console=console)


def _score(task: Task, matched: Matched, names: Sequence[str]) -> dict[str, Result]:
    """The results of the protocols named.

    Raises:
      ValueError: a protocol cannot be computed, for too few pairs say; names the list.
    """
    try:
        return {name: matched.scorers[name]() for name in names}
    except ValueError as error:
        raise ValueError(f"{task.title}: {error}") from None


def _open_run(options: EvaluateOptions, console: Console) -> VectorSource:
    assert options.run is not None
    return RunVectors(options.run, console, align=options.align)


def _open_baseline(path: Path, options: EvaluateOptions, console: Console) -> VectorSource:
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a run's folder or an .npz file, found none")
    return RunVectors(path, console, align=options.align) if path.is_dir() else StoredVectors(path)


def match_tasks(
    source: VectorSource, tasks: Sequence[Task], allow_missing: bool
) -> list[tuple[FaceVectors, Matched]]:
    """Gives each task its vectors: these, and the task ready to be scored.

    Args:
      source: gives the vectors.
      tasks: what is to be scored.
      allow_missing: whether to go on without vectors that are missing.

    Returns:
      A pair for each task, its vectors and the task ready to be scored.

    Raises:
      FileNotFoundError: something is missing, and that is not allowed.
    """
    vectors = source.vectors_for(tasks, allow_missing=allow_missing)
    matched = [task.match(each) for task, each in zip(tasks, vectors, strict=True)]
    for task, ready in zip(tasks, matched, strict=True):
        refuse_missing(ready.missing, task.title, allow_missing=allow_missing)
    return list(zip(vectors, matched, strict=True))


def _add_intervals(scored: Sequence[Scored]) -> None:
    for each in scored:
        tested = each.matched.tested
        if tested is not None and tested.people is not None and each.verified:
            each.intervals = verification_intervals(each.verified, tested.pairs, tested.people)


def _add_evidence(scored: Sequence[Scored], source: VectorSource, options: EvaluateOptions) -> None:
    """Measures likelihood ratios, groups and rejects, where pairs of images name their people.

    The rates that need a threshold take the one that is, or is about to be, the run's.
    """
    from sphereface_jax.commands.compare import read_calibration

    groups = None if options.groups is None else read_groups(options.groups)
    run = source.run if isinstance(source, RunVectors) else None
    for each in scored:
        tested, choose = each.matched.tested, each.matched.operating_point
        if choose is None or tested is None or not each.verified:
            continue
        stored = None if run is None or options.recalibrate else read_calibration(run.path)
        try:
            threshold = choose(options.max_far).threshold if stored is None else stored["threshold"]
        except TooFewPairsError:
            threshold = choose(None).threshold
        each.measured = measure(
            tested,
            each.vectors,
            title=each.task.title,
            step=0 if run is None else run.step,
            threshold=threshold,
            method=options.likelihood,
            groups=groups,
        )


def _add_prototypes(scored: Sequence[Scored], source: RunVectors) -> None:
    prototypes = np.asarray(source.run.prototypes[: source.run.num_classes])
    for each in scored:
        for name, result in each.results.items():
            if isinstance(result, GeometryResult):
                spread = prototype_spread(prototypes.reshape(-1, prototypes.shape[-1]))
                each.results[name] = dataclasses.replace(result, prototypes=spread)


def _add_baselines(
    scored: Sequence[Scored], source: VectorSource, baseline: VectorSource, allow_missing: bool
) -> None:
    deciding = [each for each in scored if each.verified]
    theirs = match_tasks(baseline, [each.task for each in deciding], allow_missing)
    for each, (_, other) in zip(deciding, theirs, strict=True):
        assert each.matched.tested is not None
        assert other.tested is not None
        if not np.array_equal(each.matched.tested.kept, other.tested.kept):
            raise ValueError(
                f"--against: expected the same pairs of {each.task.title} on both sides, but "
                f"{source.name} and {baseline.name} lack different images"
            )
        for name, result in each.verified.items():
            their_result = other.scorers[name]()
            assert isinstance(their_result, VerificationResult)
            their_numbers = their_result.to_json()
            each.against[name] = {
                "vectors": baseline.name,
                **{key: their_numbers[key] for key in _ACCURACY},
                **mcnemar(result.is_correct, their_result.is_correct).to_json(),
            }


def _calibrate(scored: Sequence[Scored], source: RunVectors, options: EvaluateOptions) -> list[str]:
    """Calibrates the run on the first list that has pairs of images; says what it stored."""
    from sphereface_jax.commands.compare import calibrate
    from sphereface_jax.commands.keep import write_arrays

    for each in scored:
        choose = each.matched.operating_point
        if choose is not None:
            try:
                point = choose(options.max_far)
            except TooFewPairsError as error:
                return [f"warning: --{str(error).replace('_', '-')}; no threshold is stored"]
            line = calibrate(
                source.run.path,
                point,
                pairs=each.task.title,
                step=source.run.step,
                max_far=options.max_far,
                replace=options.recalibrate,
            )
            path = source.run.path / LIKELIHOOD
            if each.measured is None:
                return [line]
            if path.is_file() and not options.recalibrate:
                return [line, f"{path}: what is there stays; --recalibrate replaces it"]
            write_arrays(path, each.measured.evidence)
            return [line, f"{path}: likelihood ratios for `sphereface compare`"]
    return []


def _keep(scored: Sequence[Scored], source: RunVectors, numbers: dict[str, Any]) -> None:
    """Keeps the numbers with the run, and puts them on its card."""
    from sphereface_jax.training.model_card import store_evaluation, write_model_card

    run = source.run
    title = "-".join(each.task.title for each in scored)
    store_evaluation(run.path, title, {**numbers, "step": run.step})
    write_model_card(run.path)
    _keep_evidence(scored, source)


def _keep_evidence(scored: Sequence[Scored], source: RunVectors) -> None:
    """Keeps what the report shows beside numbers."""
    from sphereface_jax.commands.keep import keep_pairs, keep_people, keep_prototypes

    run = source.run
    if run.num_classes:
        keep_prototypes(run)
    for each in scored:
        matched, tested = each.matched, each.matched.tested
        # Only pairs of single images have an operating point; of others the rows are not images.
        of_images = tested is not None and matched.operating_point is not None
        named = tested is not None and tested.people is not None
        of_people = isinstance(each.task, PeopleTask) or (of_images and named)
        found = each.task.find_images() if of_images or of_people else None
        images = {} if found is None else {n: (found.source, i) for i, n in enumerate(found.names)}
        if tested is not None and each.verified:
            keep_pairs(
                run.path,
                each.task.title,
                tested.pairs,
                each.verified,
                step=run.step,
                vectors=each.vectors if of_images else None,
                images=images,
            )
        if of_people:
            keep_people(run.path, each.task.title, each.vectors, step=run.step, images=images)


def to_json(scored: Sequence[Scored], source: VectorSource) -> dict[str, Any]:
    """The JSON of an evaluation.

    Args:
      scored: the tasks with their results.
      source: of the vectors.

    Returns:
      Each protocol's numbers by name, under "protocols", rates as fractions; whose "vectors" they
      are; and the "evidence" of each list.
    """
    protocols, evidence = {}, {}
    for each in scored:
        if each.measured is not None:
            evidence[each.task.title] = each.measured.to_json()
        left_out = {
            f"{unit.replace(' ', '_')}_left_out": listed - kept
            for unit, (kept, listed) in each.matched.used.items()
        }
        for name, result in each.results.items():
            entry = {
                **result.to_json(),
                "input": each.task.title,
                **each.matched.facts,
                **left_out,
            }
            if name in each.intervals:
                entry["intervals_95"] = each.intervals[name]
            if name in each.against:
                entry["against"] = each.against[name]
            protocols[each.task.prefix + name] = entry
    return {"protocols": protocols, "vectors": source.name, "evidence": evidence}


def _print(scored: Sequence[Scored], protocols: dict[str, Any], console: Console) -> None:
    sizes = []
    for each in scored:
        missing, used = each.matched.missing, each.matched.used
        for unit, (kept, listed) in used.items():
            if kept < listed:
                warn(
                    console,
                    f"{each.task.title}: {listed - kept:,} of {listed:,} {unit} are left out, for "
                    f"{len(missing.names):,} missing {missing.unit}",
                )
        counts = [f"{kept:,} {unit}" for unit, (kept, _) in used.items()]
        sizes.append(f"{each.task.title}: {', '.join(counts)}")
    print_results(protocols, console, title="; ".join(sizes))


@contextmanager
def _search_bar(console: Console) -> Iterator[Progress]:
    """Yields what shows a bar, from its first call on, of comparisons done out of all."""
    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal advance, shown
            if advance is None:
                bar = counting(console, "searching", "comparisons", total)
                advance = stack.enter_context(bar)
            advance(done - shown)
            shown = done

        yield show
