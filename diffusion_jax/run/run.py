"""A trained model as one object: a thin record over pure functions."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import build
from diffusion_jax.configuration import Config, changed, flatten, to_json
from diffusion_jax.configuration.check import check, check_effect
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import is_learned
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError
from diffusion_jax.run import likelihood, sampling
from diffusion_jax.run.progress import ImageProgress
from diffusion_jax.visual.images import to_uint8

T = TypeVar("T")

CHANGEABLE = ("data.dir", "variance", "decoder")  # and sample.*: what may change after training


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model.

    config: its configuration; `configured` returns a run with another one.
    diffusion: schedule, prediction, reverse process and network, as pure functions.
    params: the network's parameters, a nested dict with the names of its layers. They are the
        averaged ones unless `load` was asked for the raw ones.
    step: the number of training steps behind them.
    folder: where it was loaded from, None if it was trained in memory.
    """

    config: Config = field(repr=False)
    diffusion: build.Diffusion = field(repr=False)
    params: Any = field(repr=False)
    step: int
    folder: Path | None = None
    _compiled: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of training: float64 tables, see `core.schedules.Schedule`."""
        return self.diffusion.schedule

    @property
    def data(self) -> DataSpec:
        """Shape `(h, w, c)`, number of levels and classes of the images."""
        return self.diffusion.data

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        label: int | str | None = None,
        source: Any = None,
        strength: float | None = None,
        known: Any = None,
        mask: Any = None,
        progress: bool = False,
        **settings: Any,
    ) -> np.ndarray:
        """Draw images, the same ones that `sample.py` writes.

        Image i depends only on the seed and on i, except for rounding.

        Args:
            num: number of images.
            label: class of all images, by number or name; by default each class in turn.
            source: uint8 image `[h, w, c]` to noise and start from.
            strength: noise added to `source`, up to 1; 0.6 by default.
            known, mask: uint8 image `[h, w, c]` to inpaint, and bool `[h, w]`, True where it is
                repainted.
            progress: show the progress.
            settings: keys of the config's group `sample`, such as `sampler="dpmpp_2m"`,
                `steps=20`, `grid="log_snr"`, `guidance=2.0`.

        Returns:
            uint8 `[num, h, w, c]`, 0 to 255.

        Raises:
            UserError: an argument is wrong.
        """
        num, seed = sampling.whole_number("num", num, 1), sampling.whole_number("seed", seed, 0)
        run = self.configured(sample=settings) if settings else self
        check_effect(run.config, [f"sample.{name}" for name in settings])
        if "steps" in settings and settings["steps"] > self.schedule.steps:
            raise UserError(
                f"steps is {settings['steps']}; the run has only {self.schedule.steps} steps"
            )
        label = sampling.class_number(label, self.diffusion)
        steering = sampling.steering(self.data.shape, label, source, strength, known, mask)
        draw = run.drawing(num, steering)
        display = ImageProgress(num, "sampled", quiet=not progress)
        try:
            drawn = list(draw.generate(self.params, seed, range(num), display))
        finally:
            display.close()
        return np.concatenate([to_uint8(batch.images) for batch in drawn])

    def drawing(self, num: int, steering: build.Steering | None = None) -> sampling.Drawing:
        """Return the configured sampling method, compiled for batches of up to `num` images.

        Those that take no images are kept, so that a second call need not compile.
        """
        steering = steering or build.Steering()
        if steering.source is not None or steering.known is not None:
            return sampling.drawing(self, num, steering)
        settings = to_json(self.config)["sample"]
        key = f"sample {num} {steering.label} {self.config.variance} {json.dumps(settings)}"
        return self._once(key, lambda: sampling.drawing(self, num, steering))

    def _once(self, key: str, make: Callable[[], T]) -> T:
        """Make something that compiles once, and keep it; runs with other settings share these."""
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def bits_per_dim(
        self,
        images: Any,
        labels: Any = None,
        *,
        every: int = 1,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> likelihood.Likelihood:
        """Bound the negative log-likelihood of images, term by term, as `evaluate.py` does.

        Args:
            images: integer levels `[n, h, w, c]`, as the data set has them (0..16 for the digits).
            labels: integers `[n]`, needed if the network is conditional.
            every: draw one t from each group of this many steps; 1 computes all terms.
            batch_size: images at once; by default `config.sample.batch_size`, or 64 if that is 0.
            progress: show the progress.

        Returns:
            A record with `mean`, `stderr`, `per_image`, `terms` and `per_timestep`, in bits/dim.

        Raises:
            UserError: the images are not of the run's shape, type or levels.
            Diverged: a term is not finite.
        """
        dataset = likelihood.as_dataset(self, images, labels)
        every = sampling.whole_number("every", every, 1, max(self.schedule.steps - 1, 1))
        seed = sampling.whole_number("seed", seed, 0)
        part = self.config
        key = f"bound {every} {seed} {part.variance} {part.decoder} {part.sample.clip}"
        size = batch_size or self.config.sample.batch_size or likelihood.IMAGES_AT_ONCE
        num = len(dataset.images)
        results = likelihood.evaluate(
            self,
            dataset,
            num,
            sampling.whole_number("batch_size", size, 1),
            self._once(key, lambda: likelihood.measures(self, every, seed)),
            lambda name: ImageProgress(num, f"{name}: evaluated", quiet=not progress),
        )
        return likelihood.summary(self, results, every)

    def denoise(self, x_t: Any, t: Any, label: Any = None) -> Denoised:
        """Estimate the clean image and the noise in x_t = signal_t x0 + noise_t eps.

        A pure function that works with `jax.jit`, `jax.grad` and `jax.vmap`. To differentiate with
        respect to the parameters, use `run.diffusion.denoise(params, label, clip)(x_t, t)`.

        Args:
            x_t: float `[b, h, w, c]`.
            t: the step, 0 .. T-1: an integer, or int32 `[b]`.
            label: the class, likewise; None means "no class".

        Returns:
            `(x0, eps, var_output)`; x0 is clipped to [-1, 1] if `config.sample.clip` says so, and
            the last is None unless the variance is learned.

        Raises:
            UserError: x_t or t has another shape or type, or t is no step.
        """
        x_t, t = jnp.asarray(x_t, jnp.float32), jnp.asarray(t)
        if x_t.ndim != 4 or x_t.shape[1:] != self.data.shape:
            h, w, c = self.data.shape
            raise UserError(f"x_t is {list(x_t.shape)}; expected [b, {h}, {w}, {c}]")
        self._check_step(t, len(x_t))
        each = x_t.shape[:1]
        if label is not None:
            label = jnp.broadcast_to(jnp.asarray(label, jnp.int32), each)
        return self._denoise(self.params, x_t, jnp.broadcast_to(t.astype(jnp.int32), each), label)

    def _check_step(self, t: jax.Array, count: int) -> None:
        last = self.schedule.steps - 1
        if not jnp.issubdtype(t.dtype, jnp.integer) or t.shape not in ((), (count,)):
            raise UserError(
                f"t is {t.dtype} {list(t.shape)}; expected integers 0..{last}, one or [{count}]"
            )
        try:
            low, high = int(t.min()), int(t.max())
        except jax.errors.ConcretizationTypeError:  # inside jit, where values are not known
            return
        if not 0 <= low <= high <= last:
            raise UserError(f"t is {low}..{high}; the run's steps are 0..{last}")

    @cached_property
    def _denoise(self):
        clip, diffusion = self.config.sample.clip, self.diffusion
        return jax.jit(lambda params, x, t, label: diffusion.denoise(params, label, clip)(x, t))

    def configured(self, **changes: Any) -> "Run":
        """Return the run with other settings of sampling or evaluation.

        `run.configured(variance="fixed_small", sample={"clip": False})`.

        Args:
            changes: as in `diffusion_jax.config`; only `sample.*`, `variance`, `decoder` and
                `data.dir` may change after training.

        Raises:
            UserError: a key is unknown or may not change, or a value is wrong.
        """
        return self.with_config(changed(self.config, changes))

    def with_config(self, config: Config) -> "Run":
        """Return the run with this configuration; `configured` lists what may differ."""
        check(config)
        old, new = flatten(to_json(self.config)), flatten(to_json(config))
        different = [key for key in new if new[key] != old.get(key)]
        for key in different:
            if key not in CHANGEABLE and not key.startswith("sample."):
                raise UserError(
                    f"config.{key} cannot change after training; "
                    f"only sample.*, {', '.join(CHANGEABLE)} can"
                )
        learned = is_learned(config.variance) or is_learned(self.config.variance)
        if "variance" in different and learned:
            raise UserError(
                "config.variance cannot change to or from a learned variance; leave it out"
            )
        rebuild = any(key in CHANGEABLE for key in different)
        diffusion = build.diffusion(config, self.data) if rebuild else self.diffusion
        return replace(self, config=config, diffusion=diffusion)
