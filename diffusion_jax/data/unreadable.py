"""Images that cannot be read: one error that lists them, not one error after another."""

from collections.abc import Callable, Iterable

from diffusion_jax.errors import UserError

MOST_NAMED = 10


class BadImage(UserError):
    """An image of a data set that cannot be read: the text is `NAME: FAULT; REMEDY`."""


def bad_images(read: Callable[[int], object], indices: Iterable[int]) -> list[str]:
    """Read images one by one and return the texts of their BadImage errors.

    Raises:
        UserError: an image has another fault, such as another size.
    """
    found = []
    for index in indices:
        try:
            read(index)
        except BadImage as error:
            found.append(str(error))  # without its traceback, which holds pixels
    return found


def all_bad(found: list[str], size: int) -> BadImage:
    """Return one error for the images, among `size`, whose BadImage texts are `found`."""
    if len(found) == 1:
        return BadImage(found[0])
    named = "; ".join(text.rpartition("; ")[0] for text in found[:MOST_NAMED])
    more = f"; and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
    return BadImage(
        f"{len(found):,} of {size:,} images cannot be read: {named}{more}; remove or replace them"
    )
