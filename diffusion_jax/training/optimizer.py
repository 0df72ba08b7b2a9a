"""Optimisers and learning-rate schedules, all from Optax.

To add a decay: write a function of the peak and the number of steps that returns an Optax schedule
and add its line to `DECAYS`. Its other arguments are keys under `config.optimizer`.
"""

from collections.abc import Callable

import optax


def constant(peak: float, steps: int) -> optax.Schedule:
    """Keep the learning rate at its peak."""
    return optax.constant_schedule(peak)


def cosine(peak: float, steps: int) -> optax.Schedule:
    """Decay to 0 as a half period of a cosine."""
    return optax.cosine_decay_schedule(peak, steps)


DECAYS: dict[str, Callable[..., optax.Schedule]] = {"constant": constant, "cosine": cosine}


def learning_rate(
    peak: float, warmup_steps: int, decay: Callable[[float, int], optax.Schedule], train_steps: int
) -> optax.Schedule:
    """Return a linear rise to `peak` over `warmup_steps`, then the decay over the other steps.

    Args:
        decay: an entry of `DECAYS`.
        train_steps: number of steps of the whole run.
    """
    rest = decay(peak, max(train_steps - warmup_steps, 1))
    if warmup_steps == 0:
        return rest
    rise = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([rise, rest], [warmup_steps])


def optimizer(
    rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Return Adam with global-norm gradient clipping, or AdamW if `weight_decay` is positive.

    A `clip_norm` of 0 disables clipping.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay),
    )
