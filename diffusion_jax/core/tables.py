"""Tables of functions by name: how an entry is found, and where its arguments come from."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


def entry(table: Mapping[str, Any], chosen: Any) -> Any:
    """Return the table's entry of a name; a function is returned as it is."""
    return table[chosen] if isinstance(chosen, str) else chosen


def keywords(function: Callable, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings whose names are those of the function's arguments with defaults."""
    known = inspect.signature(function).parameters
    optional = {name for name, each in known.items() if each.default is not each.empty}
    return {name: value for name, value in settings.items() if name in optional}


def bind(function: Callable, settings: Mapping[str, Any], **given: Any) -> Callable:
    """Fix the arguments of a function that the settings have a value for.

    Args:
        given: values that the caller supplies; those that the function does not take are left out.
    """
    known = inspect.signature(function).parameters
    required = {name: value for name, value in given.items() if name in known}
    return partial(function, **{**keywords(function, settings), **required})
