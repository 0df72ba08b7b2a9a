"""Count and measure what a training step needs of each device: bytes, operations, messages.

python -m benchmarks.speed.scaling [--out x.json]

Counted without running anything: parameters, operations, what autodiff keeps, a state's bytes per
device. Measured on eight fake CPU devices: the state's bytes, and the memory and messages of the
compiled step.
"""

import gc
import re
from collections import Counter
from math import prod
from typing import Any

import jax
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from benchmarks.harness import process_memory, programs, records
from diffusion_jax import build, configuration
from diffusion_jax.command_line import run
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.devices import sharding
from diffusion_jax.devices.allocator import give_back
from diffusion_jax.models.network import parameter_count

FAKE = 8
DIGITS, CIFAR10 = (str(records.ROOT / f"configs/{name}.py") for name in ("digits", "cifar10"))

# Ho et al. 2020, appendix B: six levels, no dropout; the large network has more filters.
LSUN, LSUN_DATA = {"multipliers": "1,1,2,2,4,4", "dropout": "0"}, DataSpec((256, 256, 3), 256, 0)
NETWORKS = {
    "digits": (DIGITS, {}, programs.KNOWN["digits"]),
    "cifar10": (CIFAR10, {}, programs.KNOWN["cifar10"]),
    "lsun256": (CIFAR10, LSUN, LSUN_DATA),
    "lsun256_large": (CIFAR10, {**LSUN, "channels": "192"}, LSUN_DATA),
}
PRECISIONS = {
    f"{dtype}{'_remat' * remat}": {"dtype": dtype, "remat": str(remat)}
    for dtype in ("float32", "bfloat16")
    for remat in (False, True)
}


def job(name: str, size: int, mode: str = "jit", **changes: str) -> programs.Job:
    """Build a network of `NETWORKS`, with changed settings of `model`."""
    path, overrides, data = NETWORKS[name]
    merged = {f"model.{key}": value for key, value in {**overrides, **changes}.items()}
    merged |= {"train.batch_size": str(size), "parallel": mode}
    settings = configuration.load(path, list(merged.items()))
    return programs.Job(settings, data, build.diffusion(settings, data))


def total(tree) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def operations(one: programs.Job) -> float:
    """Return XLA's count of operations per image for the loss and its gradient."""
    loss, state = build.loss(one.settings, one.diffusion), one.state
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    costs = gradient.lower(state.params, state.memory, state.step, one.batch).cost_analysis()
    assert costs is not None
    return costs["flops"] / one.size


def kept_bytes(name: str, **changes: str) -> int:
    """Return what one more image makes autodiff keep; XLA may keep less and compute it again."""

    def held(size: int) -> int:
        one = job(name, size, **changes)
        loss, state = build.loss(one.settings, one.diffusion), one.state

        def backward(params, *rest):
            return jax.vjp(lambda p: loss(p, *rest)[0], params)[1]

        return total(jax.eval_shape(backward, state.params, state.memory, state.step, one.batch))

    return held(2) - held(1)


def split_bytes(state, count: int) -> int:
    """Return a state's bytes on each of `count` devices under `fsdp`."""
    replicated = NamedSharding(AbstractMesh((1, count), sharding.AXES), PartitionSpec())
    layout = sharding.Shardings(replicated, replicated)

    def size(leaf) -> int:
        shape = sharding.split_parameter(layout, leaf.shape).shard_shape(leaf.shape)
        return prod(shape) * leaf.dtype.itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(state))


def counts(name: str) -> dict[str, Any]:
    """Return all that is known of a network without running it."""
    one = job(name, 1)
    state = one.state
    return {
        "parameters": parameter_count(state.params),
        "bytes": {"parameters": total(state.params), "state": total(state)},
        "flops_per_image": {"step": operations(one)},
        "kept_bytes_per_image": {key: kept_bytes(name, **each) for key, each in PRECISIONS.items()},
        "state_bytes_per_device": {
            "jit": total(state),
            "fsdp": {count: split_bytes(state, count) for count in (1, 8, 64)},
        },
    }


def placed(name: str, mode: str) -> dict[str, Any]:
    """Draw a state as `train.py` does and look at what each of the fake devices holds."""
    one = job(name, FAKE, mode)
    parallel = programs.spread(one)
    places = jax.tree.map(lambda a: a.sharding, parallel.state)
    draw = jax.jit(one.training.init, out_shardings=places).lower(jax.random.key(0)).compile()
    gc.collect()
    give_back()
    before = process_memory.resident_bytes()
    state = jax.block_until_ready(parallel.place_state(draw(jax.random.key(0))))
    give_back()
    grown = process_memory.resident_bytes() - before
    own = total([leaf.addressable_data(0) for leaf in jax.tree.leaves(state)])
    assert own == (split_bytes(state, FAKE) if mode == "fsdp" else total(state))
    return {"network": name, "mode": mode, "bytes_per_device": own, "process_grew": grown}


def compiled(name: str, mode: str, count: int, size: int, remat: bool = False) -> dict[str, Any]:
    """Return one device's memory for the compiled step, and the bytes of its messages."""
    one = job(name, size, mode, remat=str(remat))
    step = programs.spread(one, jax.devices()[:count]).compile(one.batch).step
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
    }


def messages(program: str) -> dict[str, int]:
    """Return the bytes that come out of each kind of collective in a compiled program's text."""
    found: Counter[str] = Counter()
    for line in re.finditer(r"= (\S.*?) (all-\w+|reduce-scatter)(?:-start)?\(", program):
        for kind, sides in re.findall(r"\b([a-z]+\d+)\[([\d,]*)\]", line[1]):
            width = int(re.sub(r"\D", "", kind)) // 8
            found[line[2]] += width * prod(int(side) for side in sides.split(",") if side)
    return dict(found)


def main(arguments: list[str]) -> None:
    """Count, measure and report."""
    given = records.parser("speed.scaling", __doc__).parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", FAKE)
    # States come first: memory given back by XLA would hide what they take.
    states = [placed(name, mode) for name in ("digits", "cifar10") for mode in ("fsdp", "jit")]
    networks = {name: counts(name) for name in NETWORKS}
    steps = [compiled("digits", mode, FAKE, 32) for mode in ("jit", "fsdp")]
    steps += [compiled("cifar10", "jit", 1, 16, remat) for remat in (False, True)]
    measured = {"states": states, "steps": steps}
    records.save(given.out, {"counted": networks, "measured": measured})


if __name__ == "__main__":
    run(main)
