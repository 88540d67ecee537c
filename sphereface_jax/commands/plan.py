"""Will a run fit: the step of `train`, compiled for devices that are not here."""

from pathlib import Path
from typing import Any

from rich.console import Console

from sphereface_jax._console import say
from sphereface_jax.commands.plan_options import PlanOptions
from sphereface_jax.data.files import write_json
from sphereface_jax.plan.search import RULE, Compilers, ask_compiler, describe, search
from sphereface_jax.plan.targets import Target, compiler_versions, find_target
from sphereface_jax.training.config import TrainConfig

GIB, MIB = 2**30, 2**20


def plan(config: TrainConfig, options: PlanOptions, *, console: Console) -> dict[str, Any]:
    """Compiles a run's step for a target and prints what the compiler says of it.

    Args:
      config: of the run.
      options: what to compile for.
      console: where to print.

    Returns:
      What --json writes.

    Raises:
      ValueError: there is no such target, its compiler is not here, or the run cannot be laid out
        on it.
      RuntimeError: the compiler failed.
    """
    target = find_target(options.target)
    compiler_versions(target.chip.platform)
    if not options.search:
        said = ask_compiler(config, options.num_classes, target)
        _print(said, target, console)
    else:
        cache = options.cache or Path.home() / ".cache" / "sphereface_jax" / "plan.json"
        compilers = Compilers(
            options.num_classes,
            target,
            seconds=60 * options.minutes,
            cache=cache,
            report=lambda line: say(console, line),
        )
        found = search(config, compilers)
        say(console, f"\nWhat fits of the whole steps tried, best first ({RULE}):")
        for layout, step in found:
            seconds = sum(step["seconds_at_least"].values())
            memory = f"{step['total'] / GIB:.2f} GiB a device"
            say(console, f"  {describe(layout)}: {memory}, bound {1e3 * seconds:.1f} ms per step")
        if not found:
            say(console, "  none; try more devices, or --minutes for a longer search")
        said = {
            "rule": RULE,
            "layouts": [{"options": describe(layout)} | step for layout, step in found],
        }
    said["sources"] = list(target.chip.sources)
    if options.json is not None:
        write_json(options.json, said)
    return said


def _print(said: dict[str, Any], target: Target, console: Console) -> None:
    chip, mesh = target.chip, said["mesh"]
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    say(
        console,
        f"{target.name}: {target.devices} × {chip.name}, data {mesh['data']} × model "
        f"{mesh['model']}, {said['num_classes']:,} identities, batch {said['batch_size']:,} "
        f"({versions})",
    )
    usable = f"{said['usable'] / GIB:.1f} GiB"
    if chip.share < 1:
        usable += f" ({chip.share:.0%} of {chip.memory / GIB:.1f}, JAX's default)"
    if "memory" not in said:
        say(console, f"does not fit: the compiler ran out of memory ({said['compiler']})")
        return
    say(console, "memory a device, GiB")
    for kind, size in said["memory"].items():
        if size >= MIB:
            say(console, f"  {kind:12} {size / GIB:9.3f}")
    verdict = "fits" if said["fits"] else "does not fit"
    say(console, f"  {'total':12} {said['total'] / GIB:9.3f} of {usable}: {verdict}")
    flops = said["flops"]
    say(
        console,
        f"arithmetic per step: {sum(flops.values()) / 1e12:.3g} TFLOP over all devices, counted "
        f"from the program: convolutions {flops['convolution'] / 1e12:.3g}, matrix products "
        f"{flops['dot'] / 1e12:.3g}",
    )
    rates = ", ".join(f"{rate:,.0f} at {share}" for share, rate in said["images_a_second"].items())
    say(
        console,
        f"images per second, were that all (a bound): {rates} of the published bfloat16 peak, "
        f"{chip.flops / 1e12:.0f} TFLOP/s per device; nothing was timed",
    )
    bounds = said["seconds_at_least"]
    parts = ", ".join(f"{1e3 * seconds:.2f} {kind}" for kind, seconds in bounds.items())
    say(console, f"a step takes at least, in ms, each by itself: {parts}")
    say(console, f"sent by a device and step: {said['sent'] / 1e6:,.1f} MB")
    for collective in said["collectives"]:
        if collective["sent"] < said["sent"] / 1000:
            continue
        # A permutation names pairs, not a group.
        among = f" of {collective['devices']}" if collective["devices"] else ""
        size = f"{collective['bytes'] / 1e6:,.1f} MB"
        say(console, f"  {collective['count']} × {collective['kind']}{among}: {size}")
    say(console, f"compiled in {said['seconds_to_compile']:.0f} s")
    for source in chip.sources:
        say(console, f"described by {source}")
