"""Load a trained run from its folder."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from diffusion_jax import build
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.devices.compiler import enable_cache
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.errors import UserError
from diffusion_jax.models.packing import pack, unpack_on_host
from diffusion_jax.paths import as_path
from diffusion_jax.run.progress import output
from diffusion_jax.run.record import Record, read
from diffusion_jax.run.run import Run
from diffusion_jax.run.sampling import whole_number


def load(
    folder: str | Path,
    step: int | None = None,
    *,
    raw: bool = False,
    plugins: str | Path | Iterable[str | Path] = (),
    progress: bool = False,
) -> Run:
    """Load a trained run from its folder.

    If JAX has not created its devices yet, each CPU core becomes one, as in `sample.py`.

    Args:
        step: the checkpoint; by default the newest intact one.
        raw: load the parameters themselves instead of their average.
        plugins: files that define the functions the run's config names, if they are your own.
        progress: print warnings about damaged checkpoints instead of using Python's `warnings`.

    Raises:
        UserError: the folder holds no run, or one of a newer version, or its files are damaged.
    """
    if step is not None:
        whole_number("step", step, 0)
    each_core_a_device()
    enable_cache()
    load_plugins(plugins)
    record = read(as_path(folder))
    check(record.config)
    diffusion = build.diffusion(record.config, record.data)
    found, params = restore(record, diffusion, step, raw, warn=output(progress)[1])
    return Run(record.config, diffusion, params, found, record.folder)


def restore(
    record: Record,
    diffusion: build.Diffusion,
    step: int | None,
    raw: bool,
    warn: Callable[[str], None],
) -> tuple[int, Any]:
    """Restore the parameters of a checkpoint onto the first device.

    Args:
        step: by default that of the newest intact checkpoint.
        raw: restore the parameters themselves instead of their average.

    Returns:
        The checkpoint's step, and the network's tree of parameters.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or it is of another network.
    """
    if not record.checkpoints.is_dir():
        raise UserError(f"no checkpoint in {record.folder}; train first")
    checkpoints = Checkpoints(record.checkpoints, build.about(record.config, diffusion), warn=warn)
    key = jax.random.key(0)
    if raw:
        like = _on_device(jax.eval_shape(build.training(record.config, diffusion).init, key))
        state = checkpoints.restore(checkpoints.find(step), like)
        packed = state.params
    else:
        like = _on_device(jax.eval_shape(lambda key: pack(diffusion.init(key)), key))
        state = checkpoints.restore_ema(step, like)
        packed = state.ema
    return int(state.step), unpack_on_host(packed, diffusion.shapes)


def _on_device(shapes: Any) -> Any:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes)
