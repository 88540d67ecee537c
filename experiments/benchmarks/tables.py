"""Writes docs/benchmarks.md from the JSON files in experiments/results; no number is typed.

    python -m experiments.benchmarks.tables

A section whose results are not there is left out.
tests/repository/test_docs.py holds that the page is what this file writes.
"""

import json
from collections.abc import Callable
from pathlib import Path

from experiments.pages import RESULTS, Results, machine, table, write

INTRODUCTION = """\
# Benchmarks

Written by `python -m experiments.benchmarks.tables` from the files in `experiments/results`; do not
edit. Every section names its command and its machine. Times are the best of several rounds; "load"
is how busy the machine was when it began, in waiting processes.
"""


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


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

Command: `python -m experiments.benchmarks.head --preset NAME` with {names}. {machine(*presets)}
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

Command: `python -m experiments.benchmarks.head --preset blocks`. {machine(results)}
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

Command: `python -m experiments.benchmarks.head_devices`. {machine(results)}
"""


TASKS = {"train": "update", "forward": "forward"}
NETWORKS = {f"spherenet{depth}": f"SphereNet-{depth}" for depth in (4, 20, 64)}
NETWORKS["mobilefacenet"] = "MobileFaceNet"


def updates(*runs: Results) -> str:
    """SphereNet's update and forward pass against PyTorch's."""
    rows, ratios = [], []
    for results in runs:
        for row in results["rows"]:
            task = row["task"]
            names = (f"jax_{task}", f"torch_{task}", f"torch_compile_{task}")
            found = [row["contenders"][name] for name in names]
            pages = "huge" if results["huge_pages"] else "4 KiB"
            name = f"{NETWORKS[row['network']]}, {row['batch']}, {row['precision']}"
            start = [name, TASKS[task], pages]
            times = [duration(one["seconds"]) for one in found]
            rows.append([*start, *times, *(f"{row['ratios'][name]:.2f}×" for name in names[1:])])
            memory = [f"{one['peak_gib']:.2f}" for one in found]
            shares = [f"{one['share_of_peak']:.0%}" for one in found]
            ratios.append([*start, *memory, *shares, f"{found[0]['compile_seconds']:.1f} s"])
    contenders = ["here", "PyTorch", "torch.compile"]
    return f"""\
## The update

SphereNet and A-Softmax over 10,572 identities: forward, gradients and SGD, and the forward pass
alone, by the number of images; against the same network, loss and optimiser in PyTorch,
channels-last. A ratio is PyTorch's time by ours: above one, we are faster. *Huge* pages are asked
of glibc for all contenders, with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`: worth setting when you
train on a CPU.

{table(["", "", "pages", *contenders, "PyTorch / here", "torch.compile / here"], rows)}

**The goals on a CPU, 1.0 in training and 1.1 forward, are missed.** Nearly all the time goes into
convolutions, and oneDNN's, which PyTorch calls, are faster than those of XLA's CPU backend; the
table of layers says what was tried. XLA gains nothing from bfloat16 on this processor. The preset
`gpu` is for a GPU; none was at hand.

Peak memory in GiB, the fraction of the rate of a 4096 × 4096 matrix product (the better of XLA's
and PyTorch's; a convolution may run faster than that), and the seconds that our step took to
compile:

{table(["", "", "pages", *(f"{name}, GiB" for name in contenders), *contenders, "compile"], ratios)}

Command: `python -m experiments.benchmarks.train_step` with `--huge-pages` or without.
{machine(*runs)}
"""


def mobile(*runs: Results) -> str:
    """MobileFaceNet's update and forward pass against PyTorch's, with each kind of pages."""
    rows = []
    for results in runs:
        for row in results["rows"]:
            task = row["task"]
            ours, theirs = (row["contenders"][f"{name}_{task}"] for name in ("jax", "torch"))
            rows.append(
                [
                    f"{TASKS[task]}, {row['batch']} images",
                    "huge" if results["huge_pages"] else "4 KiB",
                    *(duration(found["seconds"]) for found in (ours, theirs)),
                    f"{row['ratios'][f'torch_{task}']:.2f}×",
                    *(f"{found['peak_gib']:.2f}" for found in (ours, theirs)),
                    f"{ours['compile_seconds']:.1f} s",
                ]
            )
    header = [
        "",
        "pages",
        "here",
        "PyTorch",
        "PyTorch / here",
        "here, GiB",
        "PyTorch, GiB",
        "compile",
    ]
    return f"""\
## Depthwise convolutions: MobileFaceNet

The same measurement of MobileFaceNet at 112×112, float32, against eager PyTorch. On a CPU its
depthwise convolutions, and its layer of two channels a group, are sums of shifted products; the
kernel's gradient of a 1×1 convolution is two matrix products side by side
(`sphereface_jax/models/convolution.py`); and batch normalisation takes its sums row by row. The
goal is 0.8 of PyTorch's rate.

{table(header, rows)}

Command: `python -m experiments.benchmarks.train_step --preset mobile`, with `--huge-pages` or
without. {machine(*runs)}
"""


def onednn(results: Results) -> str:
    """XLA's own convolution beside oneDNN's."""
    rows = [
        [
            name,
            *(duration(row[f"{which}_ms"] / 1e3) for which in ("own", "onednn")),
            duration(row["library_ms"] / 1e3) if "library_ms" in row else "as XLA's",
            f"{row['own_ms'] / row['onednn_ms']:.2f}×",
            f"{row['relative_error']:.0e}",
        ]
        for name, row in results["layers"].items()
    ]
    return f"""\
## oneDNN

jaxlib 0.10.2 holds oneDNN, yet its option `xla_cpu_experimental_onednn_custom_call` changes no
program that was tried: the code that runs `__onednn$convolution` is linked in, and judging by the
library's symbols the passes that would write such calls are not (of `OneDnnContractionRewriter` two
predicates show). `xla_cpu_experimental_onednn_fusion_type` is accepted and changes nothing either.
Written by hand the call works: 3×3 convolutions of {results["batch"]} images, forward, against
XLA's own. It is not in the library: its format is private to XLA, a wrong field ends the process,
and there is no call for the gradient of the kernel. What the library does for depthwise
convolutions, sums of shifted products, stands beside it.

{table(["", "XLA's own", "oneDNN", "the library", "own / oneDNN", "difference"], rows)}

Command: `python -m experiments.benchmarks.onednn`. {machine(results)}
"""


def layers(results: Results) -> str:
    """What was tried for the layers."""
    stages = results["stages"]
    kept = ("forward, own", "image gradient, own", "kernel gradient, own", "PReLU gradient, own")
    rows = [
        [
            f"**{name}**" if name in kept else name,
            *(duration(stages[s][name]["ms"] / 1e3) for s in stages),
        ]
        for name in next(iter(stages.values()))
    ]
    loops = [
        [name, duration(found["ms"] / 1e3), f"{found['temporaries_mib']:.0f} MiB"]
        for name, found in results["loops"].items()
    ]
    mobile = [
        [name, duration(row["XLA"]["ms"] / 1e3), duration(row["own"]["ms"] / 1e3)]
        for name, row in results["mobile"].items()
    ]
    errors = [stage["forward, Winograd"]["relative_error"] for stage in stages.values()]
    return f"""\
## Layers: what was tried

The 3×3 convolution of every stage of SphereNet and its gradients, {results["batch"]} images,
float32. *Default* is what XLA chooses on a CPU (YNNPACK), *own* what it does when told otherwise,
which the library does; in bold what is kept. The gradient of the kernel as explicit matrix products
is slower in every stage but the last. Winograd's F(4×4, 3×3) is faster in a middle stage or two,
but errs by {min(errors):.0e} to {max(errors):.0e} of the largest value, where imported weights are
to give the same embeddings to 1e-5: it is not used.

{table(["", *stages], rows)}

A loop over repeated units (`jax.lax.scan`) would compile once for all, but XLA's CPU backend
computes the kernel's gradient inside a loop without its fast convolutions. Rematerialisation saves
nothing here. Neither is used:

{table(["", "time", "temporaries"], loops)}

Both gradients of MobileFaceNet's convolutions, as XLA has them and as
`sphereface_jax/models/convolution.py` has them on a CPU:

{table(["", "XLA", "own"], mobile)}

Command: `python -m experiments.benchmarks.layers`. {machine(results)}
"""


INPUTS = {
    "bare_decoding": "OpenCV decoding alone",
    "folder": "pipeline, folder of JPEG",
    "folder_augmented": "the same, every augmentation, 64×56",
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

Command: `python -m experiments.benchmarks.input --faces ../shared/data/train --train-steps 60`.
{machine(results)}
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

Command: `python -m experiments.benchmarks.embed`. {machine(results)}
"""


def networks(results: Results) -> str:
    """Embedding with every kind of network beside PyTorch and onnxruntime."""
    rows = []
    for name, found in results["networks"].items():
        rates = (found["images_per_second"][side] for side in ("here", "pytorch", "onnxruntime"))
        shares = (found["by_pytorch"], found["by_onnxruntime"])
        rows.append(
            [f"`{name}`", *(f"{rate:.0f}" for rate in rates), *(f"{s:.2f}×" for s in shares)]
        )
    header = ["images/s", "here", "PyTorch", "onnxruntime", "here / PyTorch", "here / onnxruntime"]
    worst = max(found["greatest_difference"] for found in results["networks"].values())
    return f"""\
## Embedding, every network

`FaceEmbedder.embed` on {results["count"]} faces, float32, beside the same weights in eager PyTorch
(the peers' own layers, channels-last) and in onnxruntime (exported by PyTorch, norms folded).
Ratios are medians of {results["rounds"]} rounds, in each of which all three run. The embeddings are
equal to {worst:.0e}. The goal was 0.8 of PyTorch's rate.

{table(header, rows)}

Command: `python -m experiments.benchmarks.networks`. {machine(results)}
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

Command: `python -m experiments.benchmarks.verification`. {machine(results)}
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

Command: `python -m experiments.benchmarks.identification --preset {results["preset"]}`.
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
was seen in training. It took {results["minutes_training"]:.0f} minutes; the commands are
[here](faces.md).

{table(["protocol", "accuracy", "equal error rate", "TAR at FAR 1e-2"], rows)}

\\* optimistic: the threshold is chosen on the pairs that are scored. The spread of `lfw_facexzoo`
is that of the mean. {machine(results)}
"""


SECTIONS: tuple[tuple[Callable[..., str], tuple[str, ...]], ...] = (
    (heads, ("head_goals", "head_batch512", "head_million")),
    (blocks, ("head_blocks",)),
    (devices, ("head_devices",)),
    (updates, ("train_step_cpu", "train_step_cpu_huge_pages")),
    (mobile, ("train_step_mobile", "train_step_mobile_huge_pages")),
    (layers, ("layers",)),
    (onednn, ("onednn",)),
    (inputs, ("input",)),
    (embedding, ("embed",)),
    (networks, ("networks",)),
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
    write("benchmarks.md", page())


if __name__ == "__main__":
    main()
