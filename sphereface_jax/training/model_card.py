"""MODEL_CARD.md of a run: what the run itself knows, and what nobody has measured.

Everything here is read from the run's own files. Numbers come from the evaluations that are stored
with it: RUN/evaluation.json and RUN/evaluations/*.json.

References:
  Mitchell et al., Model Cards for Model Reporting, FAT* 2019. https://arxiv.org/abs/1810.03993
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphereface_jax.data.files import file_name, read_json_if_there, write_atomically, write_json
from sphereface_jax.evaluation.calibration import describe_rate
from sphereface_jax.evaluation.results import result_cells
from sphereface_jax.training.config import TrainConfig, pixel_formula
from sphereface_jax.training.run_folder import read_config

_EVALUATIONS = "evaluations"
_NOT_MEASURED = """\
- Accuracy by sex, age, skin colour or origin: the sets that a run is scored on carry no such
  labels, and face recognition is known to err more on groups that its training data lack.
- Cameras, light and image quality other than those of the sets above.
- Photographs of photographs, masks and other attempts to deceive: there is no liveness check.
- What aligning by another detector costs."""
_USE = """\
Intended: research on embeddings of faces, comparing losses and networks, verification of people
who agreed to it, with a threshold that was calibrated on images like theirs.

Misuse: identifying or following people who did not agree; deciding alone about anyone's rights,
money, work or freedom; guessing sex, origin, health or character from a face. Biometric data are
protected by law in many places; whoever uses this answers for that."""


def store_evaluation(run: Path, name: str, evaluation: dict[str, Any]) -> None:
    """Keeps the JSON of an evaluation with the run, in place of an earlier one of that name.

    Args:
      run: the run's folder.
      name: of the evaluation; the file is called by it.
      evaluation: JSON's values.
    """
    (run / _EVALUATIONS).mkdir(exist_ok=True)
    write_json(run / _EVALUATIONS / f"{file_name(name)}.json", evaluation)


def write_model_card(run: Path) -> None:
    """Writes RUN/MODEL_CARD.md anew from the run's files.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: one of its files is damaged.
    """
    write_atomically(run / "MODEL_CARD.md", model_card(run))


def model_card(run: Path) -> str:
    """Returns the text of a run's card; errors as in `write_model_card`."""
    config = read_config(run)
    imported = read_json_if_there(run / "import.json")
    sections = {
        "Model": _model(config, imported),
        "Data": _data(config, imported),
        "Training": _training(config, imported, read_json_if_there(run / "result.json")),
        "Results": "\n".join(_results(run)),
        "Not measured": _NOT_MEASURED,
        "Use and misuse": _USE,
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# {run.resolve().name}: {config.model.name}\n{body}"


def _model(config: TrainConfig, imported: dict[str, Any] | None) -> str:
    data, model = config.data, config.model
    height, width = data.image_size
    text = (
        f"A {model.name} that maps a face, aligned to five points and {height}×{width} pixels, "
        f"{data.color_order.upper()}, {pixel_formula(data)}, to "
        f"{model.embedding_dim} numbers whose angle to another face's says how alike they are."
    )
    if imported is not None:
        text += (
            f" Its weights were imported from {imported['file']} (SHA-256 {imported['sha256']}), "
            f"of a network defined in {imported['defined_in']}."
        )
    return text


def _data(config: TrainConfig, imported: dict[str, Any] | None) -> str:
    data = config.data
    if imported is not None:
        source = "Unknown: the weights were imported."
    elif data.train == "synthetic":
        source = (
            f"Synthetic faces: {data.synthetic_identities:,} drawn identities with "
            f"{data.synthetic_views:,} views each. No photograph of anybody."
        )
    else:
        source = f"`{data.train}`."
    return f"{source}\n\nLicence or terms, as declared: {data.license or 'not declared'}."


def _training(
    config: TrainConfig, imported: dict[str, Any] | None, result: dict[str, Any] | None
) -> str:
    if imported is not None:
        return "Not known here."
    given = {"margin": config.loss.margin, "scale": config.loss.scale, **config.loss.options}
    options = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    text = (
        f"Loss `{config.loss.name}` ({options or 'its defaults'}), {config.optimizer.name}, batch "
        f"{config.batch_size}, {config.steps:,} steps, seed {config.seed}."
    )
    if config.init_from is not None:
        text += f" It started from the weights of {config.init_from.name}."
    if result is None:
        return text + " It is not finished."
    return text + f" Last loss {result['loss']:.4f}."


def _results(run: Path) -> Iterator[str]:
    """Yields a table of the evaluations that are stored with the run, and its threshold."""
    rows = []
    for path in (run / "evaluation.json", *sorted((run / _EVALUATIONS).glob("*.json"))):
        evaluation = read_json_if_there(path) or {}
        for name, numbers in evaluation.get("protocols", {}).items():
            where = numbers.get("input", "held-out identities")
            where += ", detected and aligned" * evaluation.get("align", False)
            said = "; ".join(_headlines(numbers)) or "see the file"
            rows.append(f"| {name} | {where} | {said} | {path.relative_to(run)} |")
    if not rows:
        yield "None: the run has not been evaluated."
    else:
        yield "| protocol | on | numbers | file |\n|---|---|---|---|"
        yield from rows
        if any("%*" in row for row in rows):
            yield "\n\\* optimistic: the threshold was chosen on the pairs that it is scored on."
    point = read_json_if_there(run / "calibration.json")
    if point is not None:
        yield (
            f"\n`sphereface compare` says the same person above a cosine of "
            f"{point['threshold']:.4f}, measured on {point['pairs']}: false accepts "
            f"{describe_rate(point['false_accept_rate'], point['num_different'])}, false rejects "
            f"{describe_rate(point['false_reject_rate'], point['num_same'])}."
        )


def _headlines(numbers: dict[str, Any]) -> Iterator[str]:
    """Yields what a protocol of any kind measured, in a few words each."""
    for heading, text in result_cells(numbers).items():
        # A protocol's own threshold is not the run's, which the card names below.
        if text not in ("", "–") and heading != "threshold":
            yield f"{heading} {text}".replace("\n", " ")
    for name, count in numbers.items():
        if name.endswith("_left_out") and count:
            yield f"{count:,} {name.removesuffix('_left_out').replace('_', ' ')} left out"
