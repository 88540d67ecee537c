"""What a report knows of a run: plain values read from its folder, nothing to be computed."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sphereface_jax.evaluation.results import Numbers
from sphereface_jax.reports.stored import (
    LikelihoodEvidence,
    StoredPairs,
    StoredPeople,
    StoredPrototypes,
)


@dataclasses.dataclass(frozen=True)
class Score:
    """What one protocol measured, as an evaluation's JSON has it.

    Attributes:
      protocol: its name.
      on: the list or set that it was measured on.
      step: of the weights, where known.
      numbers: what was measured.
    """

    protocol: str
    on: str
    step: int | None
    numbers: Numbers

    @property
    def verifies(self) -> bool:
        """Whether it decides pairs."""
        return "accuracy_10_fold" in self.numbers


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
      name: short, for legends.
      folder: as the user would type it.
      config: of config.json.
      metrics: of metrics.jsonl.
      validation: of validation.jsonl.
      finished: whether training has ended.
      imported: of import.json, where the weights come from elsewhere.
      scores: of all evaluations, the newest of each name.
      calibration: of calibration.json.
      pairs: by list.
      people: by set.
      training: of people who were learnt.
      prototypes: of the head.
      likelihood: of likelihood.npz.
    """

    name: str
    folder: str
    config: Mapping[str, Any]
    metrics: Sequence[Numbers] = ()
    validation: Sequence[Numbers] = ()
    finished: bool = False
    imported: Numbers | None = None
    scores: Sequence[Score] = ()
    calibration: Numbers | None = None
    pairs: Mapping[str, StoredPairs] = dataclasses.field(default_factory=dict)
    people: Mapping[str, StoredPeople] = dataclasses.field(default_factory=dict)
    training: StoredPeople | None = None
    prototypes: StoredPrototypes | None = None
    likelihood: LikelihoodEvidence | None = None

    @property
    def main_people(self) -> tuple[str, StoredPeople] | None:
        """The test with the most images of named people, and its name."""
        if not self.people:
            return None
        return max(self.people.items(), key=lambda item: int(item[1].num_images))


def collect_scores(evaluations: Iterable[Numbers]) -> list[Score]:
    """The scores of evaluations in JSON, the oldest first; a later one replaces its like.

    An evaluation's `baselines`, such as raw pixels, are scores of that name.
    """
    scores: dict[tuple[str, str], Score] = {}
    for evaluation in evaluations:
        step = evaluation.get("step")
        protocols = evaluation.get("protocols", {})
        where = next((n["input"] for n in protocols.values() if "input" in n), "held-out people")
        named = [*protocols.items(), *evaluation.get("baselines", {}).items()]
        for name, numbers in named:
            on = numbers.get("input", where)
            scores[name, on] = Score(name.replace("_pixels", " pixels"), on, step, numbers)
    return list(scores.values())
