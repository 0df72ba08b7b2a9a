"""Restore a run's parameters from its folder onto the devices."""

import jax

from diffusion_jax import build, run_folder
from diffusion_jax.checkpoints.storage import Averaged, Checkpoints
from diffusion_jax.commands.terminal import warn
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.devices.sharding import Shardings
from diffusion_jax.errors import UserError


def restore_ema(
    run: run_folder.Run, diffusion: build.Diffusion, step: int | None, layout: Shardings
) -> Averaged:
    """Restore the averaged parameters of a checkpoint, by default the newest."""
    like = _on(layout, jax.eval_shape(diffusion.init, stream_key(run.config.seed, Stream.INIT)))
    return _open(run, diffusion).restore_ema(step, like)


def restore_raw(
    run: run_folder.Run, diffusion: build.Diffusion, step: int | None, layout: Shardings
) -> Averaged:
    """Restore the parameters themselves, in the place of their average."""
    checkpoints, init = _open(run, diffusion), build.training(run.config, diffusion).init
    like = _on(layout, jax.eval_shape(init, stream_key(run.config.seed, Stream.INIT)))
    state = checkpoints.restore(checkpoints.find(step), like)
    return Averaged(state.step, state.params)


def _on(layout: Shardings, shapes):
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=layout.replicated), shapes
    )


def _open(run: run_folder.Run, diffusion: build.Diffusion) -> Checkpoints:
    if not run.checkpoints.is_dir():
        raise UserError(f"no checkpoint in {run.folder}; train first")
    return Checkpoints(run.checkpoints, build.about(run.config, diffusion), warn=warn)
