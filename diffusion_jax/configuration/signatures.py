"""Keys from signatures: the arguments of functions, and the fields of networks."""

import inspect
import math
import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints


class Key(NamedTuple):
    """One key of a configuration.

    low, high: the range of a number, ends included.
    names: the table that a name must be in.
    kind: its type; by default that of the default value.
    users: the functions of a table that take it; none means that it always has an effect.
    """

    default: Any
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    names: Collection[str] = ()
    kind: Any = None
    users: tuple[str, ...] = ()

    @property
    def type(self) -> Any:
        """The type of its values."""
        return self.kind or type(self.default)


@cache
def arguments(function: Callable) -> dict[str, Key]:
    """Return the keyword arguments of a function, or the fields of a network, as keys.

    An argument without a default is not a key, since the caller supplies it; neither is one whose
    values no configuration can hold, nor `name` and `parent`, which are Flax's own.
    """
    plain = getattr(function, "func", function)  # without bound arguments
    meanings, hints = _meanings(inspect.getdoc(plain) or ""), get_type_hints(plain)
    found = {
        name: Key(
            parameter.default,
            meanings.get(name, ""),
            kind=_kind(hints.get(name, type(parameter.default))),
        )
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in ("name", "parent")
    }
    return {name: key for name, key in found.items() if _plain(key.type)}


def _kind(hint: Any) -> Any:
    """Return the type of a key's values: lists of numbers are tuples in a configuration."""
    lists = [each for each in (hint, *get_args(hint)) if get_origin(each) in (Sequence, tuple)]
    return tuple[get_args(lists[0])[0], ...] if lists else hint


def _plain(kind: Any) -> bool:
    inner = get_args(kind)[:1] if get_origin(kind) is tuple or type(None) in get_args(kind) else ()
    return (inner or (kind,))[0] in (bool, int, float, str)


def _meanings(doc: str) -> dict[str, str]:
    """Return what a docstring says of each argument or field."""
    section = re.search(r"^(?:Args|Fields):\n((?:[ \t]+.*\n?)+)", doc, re.MULTILINE)
    if section is None:
        return {}
    lines = textwrap.dedent(section[1])
    entries = re.findall(r"^(\w[\w, ]*): (.*(?:\n[ \t]+.*)*)", lines, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
