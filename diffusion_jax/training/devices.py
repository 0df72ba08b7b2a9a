"""How a step is spread over devices: `jit` over a mesh, or `pmap`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion_jax.errors import UserError

AXIS = "data"


class Shardings(NamedTuple):
    """Where arrays live on the mesh: a copy on each device, or split along their first axis."""

    replicated: NamedSharding
    split: NamedSharding


def shardings(devices: Sequence[Any]) -> Shardings:
    """The two shardings of a mesh of all `devices` along one axis."""
    mesh = jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)
    return Shardings(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS)))


class Parallel(NamedTuple):
    """A step on all devices and the ways in and out of it.

    place_state: host or device state -> state as `step` takes it.
    place_batch: host batch, first axis the whole batch -> batch as `step` takes it.
    step: `(state, batch) -> (state, metrics)`; the state passed in is used up.
    single: placed state or metrics -> the same tree, one copy of each array.
    shapes: shapes of a host state and batch -> those of the placed ones.
    """

    place_state: Callable[[Any], Any]
    place_batch: Callable[[Any], Any]
    step: Any
    single: Callable[[Any], Any]
    shapes: Callable[[Any, Any], tuple[Any, Any]]

    def compile(self, state: Any, batch: Any) -> "Parallel":
        """The same with its step compiled ahead, for a state and a batch of these shapes."""
        return self._replace(step=self.step.lower(*self.shapes(state, batch)).compile())


def _jit(make_step: Callable, devices: Sequence[Any]) -> Parallel:
    replicated, split = shardings(devices)
    return Parallel(
        place_state=lambda tree: jax.device_put(tree, replicated),
        place_batch=lambda tree: jax.device_put(tree, split),
        step=jax.jit(
            make_step(axis_name=None),
            in_shardings=(replicated, split),
            out_shardings=(replicated, replicated),
            donate_argnums=0,
        ),
        single=lambda tree: tree,
        shapes=lambda state, batch: (state, batch),
    )


def _pmap(make_step: Callable, devices: Sequence[Any]) -> Parallel:
    _, split = shardings(devices)
    count = len(devices)

    def replicate(a):
        return jax.device_put(np.broadcast_to(np.asarray(a), (count, *np.shape(a))), split)

    def shapes(state, batch):
        def rows(a, each):
            return jax.ShapeDtypeStruct((count, *each), a.dtype)

        return (
            jax.tree.map(lambda a: rows(a, a.shape), state),
            jax.tree.map(lambda a: rows(a, (a.shape[0] // count, *a.shape[1:])), batch),
        )

    def share(a):
        return jax.device_put(np.reshape(a, (count, -1, *np.shape(a)[1:])), split)

    return Parallel(
        place_state=partial(jax.tree.map, replicate),
        place_batch=partial(jax.tree.map, share),
        step=jax.pmap(make_step(axis_name=AXIS), axis_name=AXIS, devices=devices, donate_argnums=0),
        single=partial(jax.tree.map, lambda a: a[0]),
        shapes=shapes,
    )


MODES = {"jit": _jit, "pmap": _pmap}


def data_parallel(
    make_step: Callable, mode: str, devices: Sequence[Any], batch_size: int
) -> Parallel:
    """Spread a step over `devices`, each with an equal share of the batch.

    Args:
        make_step: `(axis_name) -> step`, see `training.step.make_step`.
        mode: a name in `MODES`.
        batch_size: of the whole batch.

    Raises:
        UserError: the batch does not divide by the number of devices.
    """
    check_batch(batch_size, len(devices))
    return MODES[mode](make_step, devices)


def check_batch(batch_size: int, count: int) -> None:
    """Refuse a batch that does not divide by the number of devices."""
    if batch_size % count:
        lower = batch_size // count * count
        raise UserError(
            f"config.train.batch_size {batch_size} does not divide by the {count} devices; "
            f"nearest: {lower or count} or {lower + count}"
        )
