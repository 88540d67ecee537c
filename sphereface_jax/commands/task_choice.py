"""Which tasks the options of `sphereface evaluate` ask for, and which of their protocols."""

from collections.abc import Callable
from pathlib import Path

from sphereface_jax.commands.evaluate_options import EvaluateOptions
from sphereface_jax.commands.vector_sources import StoredVectors
from sphereface_jax.tasks.ijb import IjbTask
from sphereface_jax.tasks.megaface import MegafaceTask
from sphereface_jax.tasks.packs import PackTask
from sphereface_jax.tasks.pair_list import PairsTask
from sphereface_jax.tasks.people import PEOPLE_PROTOCOLS, PeopleTask
from sphereface_jax.tasks.task import Task
from sphereface_jax.tasks.videos import VideosTask

Progress = Callable[[int, int], None]
_DECIDES_IMAGES = (PairsTask, PackTask)
_DECIDES_PAIRS = (*_DECIDES_IMAGES, VideosTask)


def choose_tasks(
    options: EvaluateOptions, stored: StoredVectors | None, progress: Progress
) -> list[tuple[Task, list[str]]]:
    """The tasks of the options' lists, and their protocols.

    Args:
      options: the lists, the images and the protocols that are named.
      stored: vectors that take the place of images, or None.
      progress: called with what is done and what there is to do.

    Returns:
      Each task with the names of the protocols to score, in the tasks' order.

    Raises:
      FileNotFoundError: a list is missing.
      ValueError: a list is damaged, or does not allow a protocol that is named.
    """
    tasks = _listed_tasks(options, progress)
    has_paths = options.images is not None or stored is not None
    may_be_people = has_paths and (options.pairs is not None or not options.lists)
    by_default = may_be_people and not options.lists and not (options.pack and stored)
    if by_default or (may_be_people and set(PEOPLE_PROTOCOLS).intersection(options.protocol)):
        tasks.append(_people_task(options, stored))
    allowed = dict.fromkeys(name for task in tasks for name in task.protocols)
    if may_be_people and not any(isinstance(task, PeopleTask) for task in tasks):
        allowed |= dict.fromkeys(PEOPLE_PROTOCOLS)
    for name in options.protocol:
        if name not in allowed:
            raise ValueError(f"protocol: expected one of {', '.join(allowed)}, got {name!r}")
    chosen = [
        (task, [name for name in task.protocols if name in (options.protocol or allowed)])
        for task in tasks
    ]
    chosen = [(task, names) for task, names in chosen if names]
    if options.against is not None and not any(
        isinstance(task, _DECIDES_PAIRS) for task, _ in chosen
    ):
        raise ValueError("--against: expected --pairs, --pack or --ytf, whose pairs are decided")
    if (options.recalibrate or options.max_far is not None) and not any(
        isinstance(task, _DECIDES_IMAGES) for task, _ in chosen
    ):
        raise ValueError("--max-far, --recalibrate: expected --pairs or --pack to calibrate on")
    return chosen


def _listed_tasks(options: EvaluateOptions, progress: Progress) -> list[Task]:
    tasks: list[Task] = []
    if options.pairs is not None:
        tasks.append(PairsTask(options.pairs, options.images))
    for path in options.pack:
        pack = PackTask(path)
        if any(task.prefix == pack.prefix for task in tasks):
            raise ValueError(f"{path}: expected packs of different names, found {path.stem} twice")
        tasks.append(pack)
    if options.ytf is not None:
        tasks.append(VideosTask(options.ytf, options.images))
    if options.ijb is not None:
        tasks.append(IjbTask(options.ijb, options.images))
    lists = options.megaface
    if lists.probes is not None and lists.distractors is not None:
        megaface = MegafaceTask(
            lists.probes,
            lists.distractors,
            images=options.images,
            distractor_images=lists.distractor_images,
            wrong_probes=lists.wrong_probes,
            wrong_distractors=lists.wrong_distractors,
            progress=progress,
        )
        tasks.append(megaface)
    return tasks


def _people_task(options: EvaluateOptions, stored: StoredVectors | None) -> PeopleTask:
    if stored is not None:
        return PeopleTask(stored.vectors.paths, title=Path(stored.name).name)
    assert options.images is not None
    return PeopleTask.of_folder(options.images)
