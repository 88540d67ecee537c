"""Writes docs/benchmarks.md from the JSON files in experiments/results; no number is typed.

    python experiments/benchmarks/tables.py

A section whose results are not there is left out. tests/test_docs.py holds that the page is what
this file writes.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS, PAGE = ROOT / "experiments" / "results", ROOT / "docs" / "benchmarks.md"

Results = dict[str, Any]

INTRODUCTION = """\
# Benchmarks

Written by `python experiments/benchmarks/tables.py` from the files in `experiments/results`; do not
edit. Every section names its command and its machine. Times are the best of several rounds; "load"
is how busy the machine was when it began, in waiting processes.
"""


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    header = list(header)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def machine(*several: Results) -> str:
    """The machine of results files, in a sentence."""
    info = several[0]["machine"]
    if isinstance(info, str):
        return f"Machine: {info}."
    loads = ", ".join(str(results["machine"]["load_before"]) for results in several)
    return (
        f"Machine: {info['processor']}, {info['cores']} cores, {info['memory_gib']} GiB; "
        f"JAX {info['jax']} on {info['devices']} × {info['device']}; load {loads}."
    )


CONTENDERS = {
    "dense": "dense",
    "streaming": "streaming",
    "bare_products": "bare products",
    "reference": "PyTorch reference",
    "pytorch_metric_learning": "PML",
}


def heads(*presets: Results) -> str:
    """Times and memory of one step of A-Softmax, of every contender at every size."""
    times, memory = [], []
    for size in (size for results in presets for size in results["sizes"]):
        found = [size["contenders"][name] for name in CONTENDERS]
        name = f"{size['classes']:,}, {size['batch']}"
        ratio = size["ratios"].get("reference / dense")
        cells = [duration(one["seconds"]) if "seconds" in one else "killed" for one in found]
        times.append([name, *cells, "–" if ratio is None else f"{ratio:.1f}×"])
        memory.append(
            [name, *(f"{one.get('peak_gib_beyond_inputs', float('nan')):.2f}" for one in found)]
        )
    memory = [[cell.replace("nan", "–") for cell in row] for row in memory]
    columns = ["C, B", *CONTENDERS.values()]
    names = ", ".join(f"`{results['preset']}`" for results in presets)
    return f"""\
## Heads

Forward and both gradients of A-Softmax with m = 4, C classes, B examples, {size["width"]} numbers
an embedding, float32. *Bare products* are the four matrix products that a streaming head cannot do
without. *PyTorch reference* is A-Softmax as usually written, with a one-hot scatter; *PML* is
pytorch-metric-learning. *Killed*: by the system, which had no more memory for it.

{table([*columns, "reference / dense"], times)}
Memory of the same, the process's peak beyond its inputs in GiB:

{table(columns, memory)}
Command: `python experiments/benchmarks/head.py --preset NAME` with {names}. {machine(*presets)}
"""


def blocks(results: Results) -> str:
    """The streaming head's block sizes."""
    rows = [
        [
            f"{size['class_block']:,}",
            duration(size["contenders"]["streaming"]["seconds"]),
            f"{size['ratios']['streaming / bare_products']:.2f}×",
        ]
        for size in results["sizes"]
    ]
    first = results["sizes"][0]
    return f"""\
## Block sizes of the streaming head

{first["classes"]:,} classes, {first["batch"]} examples; what `class_block` costs.

{table(["class_block", "a step", "by the bare products"], rows)}
Command: `python experiments/benchmarks/head.py --preset blocks`. {machine(results)}
"""


def devices(results: Results) -> str:
    """What a device holds when several share the prototypes."""
    rows = [
        [
            str(found["devices"]),
            *(f"{found[part] / 2**30:.2f}" for part in ("arguments", "results", "temporaries")),
        ]
        for found in results["bytes_of_a_device"]
    ]
    return f"""\
## Memory of a device

What one device holds of {results["classes"]:,} classes, in GiB, for a batch of {results["batch"]}
and blocks of {results["class_block"]:,}, as XLA plans it; nothing is run. Arguments are embeddings
and prototypes, results their gradients.

{table(["devices", "arguments", "results", "temporaries"], rows)}
Command: `python experiments/benchmarks/head_devices.py`. {machine(results)}
"""


INPUTS = {
    "bare_decoding": "OpenCV decoding alone",
    "folder": "pipeline, folder of JPEG",
    "rec": "pipeline, RecordIO",
    "array_record": "pipeline, ArrayRecord",
    "data_loader": "PyTorch DataLoader, folder",
}


def inputs(results: Results) -> str:
    """The input pipeline against bare decoding."""
    rows = [
        [
            title,
            f"{max(results['images_per_second'][name]):,.0f}",
            f"{results['share_of_bare_decoding'][name]:.0%}",
        ]
        for name, title in INPUTS.items()
        if name in results["images_per_second"]
    ]
    waits = results.get("input_wait_share")
    step = "" if waits is None else f" A step of SphereNet-4 waits {waits:.1%} of its time for it."
    return f"""\
## Input

{results["images"]:,} faces, batches of {results["batch_size"]}, {results["threads"]} threads.{step}

{table(["", "images/s", "of bare decoding"], rows)}
Command: `python experiments/benchmarks/input.py`. {machine(results)}
"""


EMBEDDING = {
    "forward": "network alone",
    "forward_two_views": "network alone, both views",
    "arrays": "`FaceEmbedder.embed`, arrays",
    "folder": "`FaceEmbedder.embed`, folder",
    "folder_two_views": "the same, both views",
    "pack_two_views": "verification pack, both views",
}


def embedding(results: Results) -> str:
    """A trained network over folders and packs against its bare forward pass."""
    rows = [
        [
            EMBEDDING.get(name, name.replace("_", " ")),
            f"{max(rates):,.1f}",
            f"{results['share_of_forward'][name]:.0%}",
        ]
        for name, rates in results["images_per_second"].items()
    ]
    return f"""\
## Embedding

{results["images"]:,} faces through {results["arch"]}, {results["batch_size"]} at a time; the share
is of the network's forward pass alone.

{table(["", "images/s", "of the forward pass"], rows)}
Command: `python experiments/benchmarks/embed.py`. {machine(results)}
"""


def verification(results: Results) -> str:
    """The LFW protocols from stored vectors."""
    rows = [[f"`{name}`", duration(value)] for name, value in results["seconds"].items()]
    rows.append(["together", duration(results["seconds_together"])])
    return f"""\
## Verification

The protocols on {results["num_pairs"]:,} pairs of {results["num_images"]:,} vectors of
{results["embedding_dim"]} numbers, with mirror images.

{table(["protocol", "time"], rows)}
Command: `python experiments/benchmarks/verification.py`. {machine(results)}
"""


def identification(results: Results) -> str:
    """MegaFace's search against its matrix product."""
    rows = [
        ["bare matrix product", duration(min(results["bare_product_seconds"]))],
        ["search", duration(min(results["search_seconds"]))],
        ["ratio", f"{results['ratio']:.2f}"],
        ["ratio of processor time", f"{results['processor_time_ratio']:.2f}"],
        ["memory beyond the vectors", f"{results['peak_gib_beyond_vectors']:.1f} GiB"],
    ]
    return f"""\
## Identification

{results["num_probes"]:,} probes search {results["num_distractors"]:,} distractors of
{results["embedding_dim"]} numbers, as MegaFace does.

{table(["", ""], rows)}
Command: `python experiments/benchmarks/identification.py --preset {results["preset"]}`.
{machine(results)}
"""


def faces(results: Results) -> str:
    """The measured run on real faces."""
    config = results["config"]
    rows = [
        [
            f"`{name}`" + ("*" if scores["optimistic"] else ""),
            f"{scores['accuracy_10_fold']:.2%}"
            + ("" if scores["accuracy_std"] is None else f" ± {scores['accuracy_std']:.2%}"),
            f"{scores['equal_error_rate']:.1%}",
            f"{scores['tar_at_far']['1e-2']:.1%}",
        ]
        for name, scores in results["protocols"].items()
    ]
    return f"""\
## Real faces

{results["experiment"]}, {config["steps"]:,} steps of {config["batch_size"]}; none of LFW's people
was seen in training. It took {results["minutes_training"]:.0f} minutes. The command stands in the
README.

{table(["protocol", "accuracy", "equal error rate", "TAR at FAR 1e-2"], rows)}
\\* optimistic: the threshold is chosen on the pairs that are scored. The spread of `lfw_facexzoo`
is that of the mean. {machine(results)}
"""


SECTIONS: tuple[tuple[Callable[..., str], tuple[str, ...]], ...] = (
    (heads, ("head_goals", "head_batch512", "head_million")),
    (blocks, ("head_blocks",)),
    (devices, ("head_devices",)),
    (inputs, ("input",)),
    (embedding, ("embed",)),
    (verification, ("verification_full",)),
    (identification, ("identification_full",)),
    (faces, ("faces_lfw",)),
)


def page(folder: Path = RESULTS) -> str:
    """The text of docs/benchmarks.md."""
    parts = [INTRODUCTION]
    for section, names in SECTIONS:
        paths = [folder / f"{name}.json" for name in names]
        if all(path.is_file() for path in paths):
            parts.append(section(*(json.loads(path.read_text()) for path in paths)))
    return "\n".join(parts)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
