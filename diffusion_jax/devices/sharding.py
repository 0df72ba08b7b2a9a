"""Data parallelism: `jit` over a mesh, with whole or split parameters, or `pmap`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion_jax.devices.allocator import make_room
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.errors import UserError

AXES = ("data", "fsdp")
SPLIT_FROM = 4096  # elements; splitting smaller arrays is not worth the communication


class Shardings(NamedTuple):
    """Two shardings of an array: a copy on each device, or a split along its first axis."""

    replicated: NamedSharding
    split: NamedSharding


def shardings(devices: Sequence[Any], fsdp: int = 1) -> Shardings:
    """Make the two shardings of a mesh over all `devices`; a batch is split over both axes.

    Args:
        fsdp: size of the axis `fsdp`; the size of the axis `data` is `len(devices) // fsdp`.
    """
    shape = (len(devices) // fsdp, fsdp)
    mesh = jax.make_mesh(shape, AXES, (AxisType.Auto, AxisType.Auto), devices=devices)
    return Shardings(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXES)))


def whole_batch(batch_size: int, layout: Shardings) -> int:
    """Round a batch size up to a multiple of the number of devices."""
    devices = len(layout.split.device_set)
    return -(-batch_size // devices) * devices


def split_parameter(layout: Shardings, shape: Sequence[int]) -> NamedSharding:
    """Split the longest side that the size of axis `fsdp` divides; leave a small array whole."""
    mesh = layout.replicated.mesh
    count = mesh.shape["fsdp"]
    sides = [side for side in shape if side % count == 0]
    if count == 1 or not sides or np.prod(shape) < SPLIT_FROM:
        return layout.replicated
    axis = tuple(shape).index(max(sides))
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))


class Parallel(NamedTuple):
    """A step on all devices, and the functions that move its inputs and results.

    state: shapes and shardings with which a state is drawn or restored.
    place_state: a state with these shardings, or on the host -> state as `step` takes it.
    place_batch: this process's share of a batch, on the host -> batch as `step` takes it.
    step: `(state, batch) -> (state, metrics)`; the state passed in is used up.
    single: placed state -> the state to save: one copy of each array, which may be split.
    gather: part of a placed state -> the same tree, whole in this process; all must call it.
    read: metrics -> the same tree as NumPy arrays; waits until they are computed.
    shapes: shapes of a process's batch -> those of the placed state and batch.
    """

    state: Any
    place_state: Callable[[Any], Any]
    place_batch: Callable[[Any], Any]
    step: Any
    single: Callable[[Any], Any]
    gather: Callable[[Any], Any]
    read: Callable[[Any], Any]
    shapes: Callable[[Any], tuple[Any, Any]]

    def compile(self, batch: Any, **options: Any) -> "Parallel":
        """Return a copy whose step is compiled ahead of time for a process's batch of these shapes.

        Args:
            options: XLA options in addition to `compiler_options`.
        """
        lowered = self.step.lower(*self.shapes(batch))
        step = lowered.compile(compiler_options={**compiler_options(), **options})
        on_cpu = jax.default_backend() == "cpu"  # elsewhere malloc does not allocate them
        make_room(step.memory_analysis().temp_size_in_bytes if on_cpu else 0)
        return self._replace(step=step)


def _on(shapes: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes, places
    )


def _jit(make_step: Callable, devices: Sequence[Any], shapes: Any, fsdp: int = 1) -> Parallel:
    layout = shardings(devices, fsdp)
    replicated, split = layout
    places = jax.tree.map(lambda a: split_parameter(layout, a.shape), shapes)
    gather = jax.jit(lambda tree: tree, out_shardings=replicated)
    # Split parameters are gathered for the network only; their gradients are split again.
    whole = partial(jax.lax.with_sharding_constraint, shardings=replicated)
    state = _on(shapes, places)

    def placed(batch):
        def rows(a):
            return jax.ShapeDtypeStruct(
                (a.shape[0] * jax.process_count(), *a.shape[1:]), a.dtype, sharding=split
            )

        return state, jax.tree.map(rows, batch)

    return Parallel(
        state=state,
        place_state=lambda tree: jax.device_put(tree, places),
        place_batch=partial(jax.tree.map, partial(jax.make_array_from_process_local_data, split)),
        step=jax.jit(
            make_step(**{"whole": whole} if fsdp > 1 else {}),
            in_shardings=(places, split),
            out_shardings=(places, replicated),
            donate_argnums=0,
        ),
        single=partial(jax.tree.map, _once),
        gather=lambda tree: jax.tree.map(lambda a: a.addressable_data(0), gather(tree)),
        read=partial(jax.tree.map, np.asarray),
        shapes=placed,
    )


def _once(array: jax.Array) -> jax.Array:
    # Orbax would slice a replicated array, a part per device, and compile a program per shape.
    alone = array.is_fully_replicated and jax.process_count() == 1
    return array.addressable_data(0) if alone else array


def _fsdp(make_step: Callable, devices: Sequence[Any], shapes: Any) -> Parallel:
    return _jit(make_step, devices, shapes, fsdp=len(devices))


def _pmap(make_step: Callable, devices: Sequence[Any], shapes: Any) -> Parallel:
    replicated, split = shardings(devices)
    axis, count = AXES[0], len(devices)

    def replicate(a):
        return jax.device_put(np.broadcast_to(np.asarray(a), (count, *np.shape(a))), split)

    def placed(batch):
        def rows(a, each):
            return jax.ShapeDtypeStruct((count, *each), a.dtype)

        return (
            jax.tree.map(lambda a: rows(a, a.shape), shapes),
            jax.tree.map(lambda a: rows(a, (a.shape[0] // count, *a.shape[1:])), batch),
        )

    def share(a):
        return jax.device_put(np.reshape(a, (count, -1, *np.shape(a)[1:])), split)

    def first(a):
        return a[0]

    return Parallel(
        state=_on(shapes, jax.tree.map(lambda _: replicated, shapes)),
        place_state=partial(jax.tree.map, replicate),
        place_batch=partial(jax.tree.map, share),
        step=jax.pmap(make_step(axis_name=axis), axis_name=axis, devices=devices, donate_argnums=0),
        single=partial(jax.tree.map, first),
        gather=partial(jax.tree.map, first),
        read=partial(jax.tree.map, lambda a: np.asarray(a.addressable_data(0))[0]),
        shapes=placed,
    )


MODES = {"jit": _jit, "fsdp": _fsdp, "pmap": _pmap}


def data_parallel(
    make_step: Callable, mode: str, devices: Sequence[Any], batch_size: int, shapes: Any
) -> Parallel:
    """Spread a step over `devices`, each with an equal share of the batch.

    Args:
        make_step: `(axis_name=, whole=) -> step`, see `training.step.make_step`.
        mode: a name in `MODES`: parameters and optimiser whole on each device (`jit`, `pmap`) or
            split over them (`fsdp`).
        batch_size: size of the whole batch.
        shapes: shapes of a state.

    Raises:
        UserError: the batch is not divisible by the number of devices, or the mode is for one
            process only.
    """
    check_batch(batch_size, len(devices))
    if mode == "pmap" and jax.process_count() > 1:
        raise UserError("config.parallel=pmap works in one process only; set it to jit or fsdp")
    return MODES[mode](make_step, devices, shapes)


def check_batch(batch_size: int, count: int, pieces: int = 1) -> None:
    """Raise `UserError` if `batch_size` is not divisible by `count` devices times `pieces`."""
    if batch_size % (count * pieces) == 0:
        return
    lower = batch_size // (count * pieces) * count * pieces
    by = f"the {count} devices" + f" times config.train.accumulate {pieces}" * (pieces > 1)
    raise UserError(
        f"config.train.batch_size {batch_size} is not divisible by {by}; "
        f"nearest: {lower or count * pieces} or {lower + count * pieces}"
    )


def voting(devices: Sequence[Any]) -> Callable[[int], Any]:
    """Return `(number) -> the largest number of all processes`, computed without waiting for it."""
    if jax.process_count() == 1:
        return lambda number: number
    replicated, split = shardings(devices)
    largest = jax.jit(jax.numpy.max, out_shardings=replicated)

    def vote(number: int) -> jax.Array:
        own = np.full(jax.local_device_count(), number, np.int32)
        return largest(jax.make_array_from_process_local_data(split, own))

    return vote
