"""What a training command prints before its first step."""

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.configuration import Config
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.errors import counted
from diffusion_jax.models.network import parameter_count
from diffusion_jax.run.classes import class_line, empty_classes
from diffusion_jax.run.memory import GIB, MIB
from diffusion_jax.run.prepare import Prepared


def run_line(config: Config, size: int, diffusion: build.Diffusion) -> str:
    """Return one line on devices, network and data."""
    h, w, c = diffusion.data.shape
    count, processes = jax.device_count(), jax.process_count()
    kind = jax.devices()[0].device_kind
    return (
        f"devices: {count} x {kind} ({config.parallel}"
        f"{f', {processes} processes' if processes > 1 else ''}) | "
        f"parameters: {parameter_count(diffusion.shapes):,} | "
        f"data: {config.data.name}, {counted(size, 'image')} {h}x{w}x{c} "
        f"in {diffusion.data.levels} levels | "
        f"batch per device: {config.train.batch_size // count}"
    )


def prepared_line(prepared: Prepared, needed: int, free: float) -> str:
    """Return one line on what reading and compiling took, and the memory of a step."""
    read = f"read in {prepared.read_seconds:.1f} s, " if prepared.dataset is not None else ""
    memory = f"{needed / MIB:,.0f} MiB of the {free / GIB:,.1f} GiB free per device"
    return f"{read}compiled in {prepared.compile_seconds:.1f} s; a step takes {memory}"


def class_lines(config: Config, source: Source, dataset: Dataset | None) -> tuple[str, str]:
    """Return a line on the images of each class, and a warning of classes without any.

    Both are empty if the network is unconditional or the labels are not known.
    """
    labels = source.labels if dataset is None else dataset.labels
    if labels is None or not config.model.get("classes", 0):
        return "", ""
    given = source.class_names, np.bincount(labels, minlength=source.classes)
    return class_line(*given), empty_classes(*given)


def rate_change(before: Config, now: Config, step: int) -> str:
    """Return a line on a learning rate that jumps at a resume; '' if it does not."""
    old, new = (float(np.asarray(build.learning_rate(each)(step))) for each in (before, now))
    if abs(new - old) <= 1e-6 * max(abs(new), abs(old)):
        return ""
    return (
        f"train.steps {before.train.steps:,} -> {now.train.steps:,} changes the schedule of the "
        f"learning rate: after step {step:,} the rate is {new:.3g} instead of {old:.3g}"
    )


def warmup_change(given: int, config: Config) -> str:
    """Return a line on a warm-up that was cut from `given` steps; '' if it was not."""
    taken = config.optimizer.warmup_steps
    if taken == given:
        return ""
    return (
        f"optimizer.warmup_steps {given:,} is not shorter than the run of "
        f"{counted(config.train.steps, 'step')}: the warm-up is cut to "
        f"{counted(taken, 'step')}"
    )


def no_test_split(config: Config, source: Source) -> str:
    """Return a line on data without a split to evaluate on; '' if there is one."""
    if source.splits != ("train",) or config.data.split != "train":
        return ""
    return (
        "the data has no split 'test' to evaluate on; --config.data.holdout=0.1 keeps a tenth of "
        "the images for it"
    )
