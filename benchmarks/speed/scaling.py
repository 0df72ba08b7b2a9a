"""What a training step needs of each device: bytes, operations, messages; and scaling on paper.

python -m benchmarks.speed.scaling [--out benchmarks/results/scaling.json]

Counted without running anything: parameters, operations, what autodiff keeps, a state's bytes per
device. Measured on eight fake CPU devices: the state's bytes, and the memory and messages of the
compiled step. Computed from those counts and cited figures: `benchmarks.speed.scaling_model`.
"""

import argparse
import gc
import re
import time
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from benchmarks.harness import records
from benchmarks.speed import scaling_model
from diffusion_jax import build, config
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.devices import sharding
from diffusion_jax.devices.allocator import give_back
from diffusion_jax.models.network import parameter_count
from diffusion_jax.training.step import Batch

FAKE = 8
DIGITS, CIFAR10 = records.ROOT / "configs/digits.py", records.ROOT / "configs/cifar10.py"

# Ho et al. 2020, appendix B: six levels, no dropout; the large one has more filters.
LSUN = {"model.multipliers": "1,1,2,2,4,4", "model.dropout": "0"}
NETWORKS = {
    "digits": (DIGITS, {}, DataSpec((8, 8, 1), 17, 10)),
    "cifar10": (CIFAR10, {}, DataSpec((32, 32, 3), 256, 10)),
    "lsun256": (CIFAR10, LSUN, DataSpec((256, 256, 3), 256, 0)),
    "lsun256_large": (
        CIFAR10,
        {**LSUN, "model.channels": "192"},
        DataSpec((256, 256, 3), 256, 0),
    ),
}


class Job(NamedTuple):
    """A network, how it is trained on a batch, and the shapes of state and batch."""

    training: build.Training
    loss: build.Loss
    state: Any
    batch: Batch

    @property
    def size(self) -> int:
        """Images in the batch."""
        return len(self.batch.index)


def job(name: str, size: int, **changes: str) -> Job:
    """A network of `NETWORKS`, with other settings of `model`."""
    path, overrides, data = NETWORKS[name]
    more = {f"model.{key}": value for key, value in changes.items()}
    merged = {**overrides, **more, "train.batch_size": str(size)}
    settings = config.load(str(path), list(merged.items()))
    diffusion = build.diffusion(settings, data)
    training = build.training(settings, diffusion)
    number = jax.ShapeDtypeStruct((size,), np.int32)
    batch = Batch(jax.ShapeDtypeStruct((size, *data.shape), np.uint8), number, number)
    shapes = jax.eval_shape(training.init, jax.random.key(0))
    return Job(training, build.loss(settings, diffusion), shapes, batch)


def total(tree) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def operations(one: Job) -> dict[str, float]:
    """Operations per image of loss and gradient, and of the loss alone, as XLA counts them."""

    def count(function) -> float:
        state = one.state
        lowered = jax.jit(function).lower(state.params, state.memory, state.step, one.batch)
        costs = lowered.cost_analysis()
        assert costs is not None
        return costs["flops"] / one.size

    return {"step": count(jax.value_and_grad(one.loss, has_aux=True)), "forward": count(one.loss)}


def kept(name: str, **changes: str) -> int:
    """Bytes that one image more makes autodiff keep for the backward pass.

    XLA may keep less: it can compute cheap ones again.
    """

    def held(size: int) -> int:
        one = job(name, size, **changes)

        def backward(params, *rest):
            return jax.vjp(lambda p: one.loss(p, *rest)[0], params)[1]

        state = one.state
        return total(jax.eval_shape(backward, state.params, state.memory, state.step, one.batch))

    return held(2) - held(1)


def split_bytes(state, count: int) -> int:
    """A state's bytes on each of `count` devices under `fsdp`, by `devices.split_parameter`."""
    replicated = NamedSharding(AbstractMesh((1, count), sharding.AXES), PartitionSpec())
    layout = sharding.Shardings(replicated, replicated)
    return sum(
        prod(sharding.split_parameter(layout, leaf.shape).shard_shape(leaf.shape))
        * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


def counts(name: str) -> dict:
    """All that is known of a network without running it."""
    one = job(name, 1)
    settings = {
        f"{dtype}{'_remat' * remat}": {"dtype": dtype, "remat": str(remat)}
        for dtype in ("float32", "bfloat16")
        for remat in (False, True)
    }
    return {
        "parameters": parameter_count(one.state.params),
        "bytes": {
            "parameters": total(one.state.params),
            "gradients": total(one.state.params),
            "adam": total(one.state.opt_state),
            "ema": total(one.state.ema),
            "state": total(one.state),
        },
        "flops_per_image": operations(one),
        "kept_bytes_per_image": {key: kept(name, **each) for key, each in settings.items()},
        "state_bytes_per_device": {
            "jit": total(one.state),
            "fsdp": {count: split_bytes(one.state, count) for count in (1, 8, 64)},
        },
    }


def spread(one: Job, mode: str, count: int) -> sharding.Parallel:
    """The job's step on so many fake devices."""
    used = jax.devices()[:count]
    return sharding.data_parallel(one.training.make_step, mode, used, one.size, one.state)


def placed(name: str, mode: str) -> dict:
    """Draw a state as `train.py` does and look at what each of eight devices holds."""
    one = job(name, FAKE)
    parallel = spread(one, mode, FAKE)
    places = jax.tree.map(lambda a: a.sharding, parallel.state)
    draw = jax.jit(one.training.init, out_shardings=places).lower(jax.random.key(0)).compile()
    gc.collect()
    give_back()
    before = psutil.Process().memory_info().rss
    state = jax.block_until_ready(parallel.place_state(draw(jax.random.key(0))))
    give_back()
    grown = psutil.Process().memory_info().rss - before
    own = [
        sum(leaf.addressable_data(i).nbytes for leaf in jax.tree.leaves(state)) for i in range(FAKE)
    ]
    assert set(own) == {split_bytes(one.state, FAKE) if mode == "fsdp" else total(one.state)}
    return {"network": name, "mode": mode, "bytes_per_device": own[0], "process_grew": grown}


def compiled(name: str, mode: str, count: int, size: int, remat: bool = False) -> dict:
    """Memory of one device's part of the compiled step, and the bytes of its messages."""
    one = job(name, size, remat=str(remat))
    began = time.perf_counter()
    step = spread(one, mode, count).compile(one.batch).step
    used = step.memory_analysis()
    return {
        "network": name,
        "mode": mode,
        "devices": count,
        "batch": size,
        "remat": remat,
        "argument_bytes": used.argument_size_in_bytes,
        "temporary_bytes": used.temp_size_in_bytes,
        "messages": messages(step.as_text()),
        "compile_seconds": time.perf_counter() - began,
    }


def messages(program: str) -> dict[str, int]:
    """Bytes that come out of each kind of collective operation in a compiled program's text."""
    found: Counter[str] = Counter()
    for line in re.finditer(r"= (\S.*?) (all-\w+|reduce-scatter)(?:-start)?\(", program):
        for kind, sides in re.findall(r"\b([a-z]+\d+)\[([\d,]*)\]", line[1]):
            width = int(re.sub(r"\D", "", kind)) // 8
            found[line[2]] += width * prod(int(side) for side in sides.split(",") if side)
    return dict(found)


def main() -> None:
    """Count, measure, compute and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", FAKE)
    # Before anything is compiled: memory that XLA gave back would hide what a state takes.
    states = [placed(name, mode) for name in ("digits", "cifar10") for mode in ("fsdp", "jit")]
    networks = {name: counts(name) for name in NETWORKS}
    flops = {name: each["flops_per_image"]["step"] for name, each in networks.items()}
    steps = [
        *(compiled("digits", mode, FAKE, 32) for mode in ("jit", "fsdp")),
        compiled("cifar10", "jit", 1, 16),
        compiled("cifar10", "jit", 1, 16, remat=True),
    ]
    paper = {
        name: {
            "used_of_peak": scaling_model.used_of_peak(name, flops),
            "rows": scaling_model.predict(name, networks[name]["parameters"], flops),
        }
        for name in scaling_model.PAPER_NETWORK
    }
    chips = {name: chip._asdict() for name, chip in scaling_model.CHIPS.items()}
    result = {
        "counted": networks,
        "measured": {"states": states, "steps": steps},
        "cited": {"chips": chips, "steps": scaling_model.PAPER},
        "computed": paper,
    }
    records.save(given.out, result)


if __name__ == "__main__":
    main()
