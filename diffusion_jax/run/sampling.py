"""Draw images from a trained run."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.build import Steering
from diffusion_jax.devices import sharding
from diffusion_jax.errors import UserError
from diffusion_jax.samplers import batch_size
from diffusion_jax.samplers.generate import Generated, Method, make_generate

if TYPE_CHECKING:
    from diffusion_jax.run.run import Run

STRENGTH = 0.6  # the default noise for an image to start from


class Drawing(NamedTuple):
    """A sampling method, ready to draw: `generate` is that of `samplers.generate`."""

    method: Method
    generate: Callable[..., Iterator[Generated]]


def drawing(run: "Run", num: int, steering: Steering) -> Drawing:
    """Prepare the sampling method of the run's config, for batches of up to `num` images.

    Raises:
        UserError: the steering does not fit the run.
    """
    method = build.method(run.config, run.diffusion, steering)
    limit = run.config.sample.batch_size
    at_once = min(num, limit) if limit else batch_size.at_once(num, jax.devices())
    layout = sharding.shardings(jax.devices()[:at_once])
    return Drawing(method, make_generate(method, layout, at_once))


def steering(
    shape: tuple[int, int, int],
    label: int | None,
    source: Any,
    strength: float | None,
    known: Any,
    mask: Any,
) -> Steering:
    """Check arguments of `Run.sample` and scale images to [-1, 1]."""
    if (known is None) != (mask is None):
        raise UserError("known and mask belong together: give both")
    if known is not None and source is not None:
        raise UserError("known and source exclude each other: give one")
    if strength is not None and source is None:
        raise UserError("strength is the noise added to source: give both")
    if strength is not None and not 0.0 < strength <= 1.0:
        raise UserError(f"strength is {strength:g}; it must be above 0 and at most 1")
    return Steering(
        label=label,
        source=None if source is None else _image("source", source, shape),
        strength=strength or (STRENGTH if source is not None else 1.0),
        known=None if known is None else _image("known", known, shape),
        seen=None if mask is None else 1.0 - _mask(mask, shape),
    )


def class_number(label: int | str | None, diffusion: build.Diffusion) -> int | None:
    """Return the number of a class given by name or number; names take precedence.

    Raises:
        UserError: there is no class of this name.
    """
    names = diffusion.data.class_names
    if label is None:
        return None
    if not isinstance(label, str):
        return whole_number("label", label, -(2**31))
    if label in names:
        return names.index(label)
    if label.removeprefix("-").isdecimal():
        return int(label)  # its range is checked where the sampling method is built
    known = f"the classes {', '.join(names[:20])}" if names else "no class names; give a number"
    raise UserError(f"class {label}: the run has {known}")


def _image(name: str, given: Any, shape: tuple[int, int, int]) -> np.ndarray:
    image = np.asarray(given)
    if image.dtype != np.uint8 or image.shape != shape:
        raise UserError(
            f"{name} is {image.dtype} {list(image.shape)}; expected a uint8 image {list(shape)}"
        )
    return image.astype(np.float32) / 127.5 - 1.0


def _mask(given: Any, shape: tuple[int, int, int]) -> np.ndarray:
    mask = np.asarray(given)
    if mask.dtype != bool or mask.shape != shape[:2]:
        raise UserError(
            f"mask is {mask.dtype} {list(mask.shape)}; expected bool {list(shape[:2])}, "
            "True where the image is repainted"
        )
    if mask.all() or not mask.any():
        raise UserError(
            f"mask selects {'everything' if mask.all() else 'nothing'}; it must be True where the "
            "image is repainted and False elsewhere"
        )
    return mask[..., None].astype(np.float32)


def whole_number(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return `value` if it is a whole number in this range; raise a `UserError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserError(f"{name} is {value!r:.50}; expected a whole number")
    if not low <= value <= high:
        raise UserError(f"{name} is {value}; it must lie between {low} and {high}")
    return int(value)
