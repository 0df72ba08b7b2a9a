"""The list of all configuration keys, for docs/configuration.md and `train.py --keys`.

python -m diffusion_jax.configuration.reference prints the page; `make docs` writes it.
"""

import math
from collections.abc import Iterator

from diffusion_jax.configuration.as_json import MAY_CHANGE
from diffusion_jax.configuration.change import describe
from diffusion_jax.configuration.keys import Key, keys
from diffusion_jax.configuration.tables import TABLES
from diffusion_jax.errors import unknown_name

INTRODUCTION = """\
# Configuration keys

`make docs` generates this page from `diffusion_jax/configuration/keys.py` and the docstrings of
schedules, samplers, networks and the other tables. `python train.py --keys` prints the keys,
`--keys=model` those of one group.

Set a key on the command line with `--config.key=value`. Keys are locked: a misspelt key is an error
that names the nearest one. The defaults, `configs/default.py`, are DDPM's network and optimiser on
CIFAR-10 with our own choices elsewhere; `configs/ddpm.py` is DDPM's run as published.
"""
RESUMING = """\
## What may change when a run resumes

{names}, and all keys that end in `_every`. With `train.minutes`, `train.steps` may not change. Any
other change is refused. Other devices, `parallel`, `train.accumulate` or `model.remat` change
results only by rounding.
"""


def markdown() -> str:
    """Return the page docs/configuration.md."""
    lines = [INTRODUCTION]
    known = keys()
    for group in ["", *dict.fromkeys(name.partition(".")[0] for name in known if "." in name)]:
        lines += [f"## `{group}`\n" if group else "## Top level\n"]
        lines += ["| key | default | values | meaning |", "|---|---|---|---|"]
        lines += [_row(name, key) for name, key in _of_group(known, group)]
        lines.append("")
    lines.append(RESUMING.format(names=", ".join(f"`{name}`" for name in MAY_CHANGE)))
    return "\n".join(lines)


def listing(group: str = "") -> str:
    """Return the keys of one group, or all, as text.

    Raises:
        UserError: there is no such group.
    """
    known = [*keys().items(), *_of_other_entries()]
    groups = dict.fromkeys(name.partition(".")[0] for name, _ in known)
    if group and group not in groups:
        raise unknown_name("group of keys", group, groups)
    return "\n".join(
        f"{name} = {_shown(key.default)}  ({values(key)})\n    {meaning(key)}".replace("`", "")
        for name, key in known
        if not group or name.split(".")[0] == group
    )


def _of_other_entries() -> Iterator[tuple[str, Key]]:
    """Yield the keys of other networks, and of users' functions, which exist if they are chosen."""
    usual = keys()
    for name, table in TABLES.items():
        for entry in table:
            for key, meant in keys({name: entry}).items():
                if meant.users == (entry,) and usual.get(key) != meant:
                    yield key, meant


def _of_group(known: dict[str, Key], group: str) -> Iterator[tuple[str, Key]]:
    for name, key in known.items():
        if name.rpartition(".")[0] == group:
            yield name, key


def _row(name: str, key: Key) -> str:
    shown = _shown(key.default)
    return f"| `{name}` | {shown and f'`{shown}`'} | {values(key)} | {meaning(key)} |"


def meaning(key: Key) -> str:
    """Return what a key means, and which functions of a table take it."""
    taken = f"for {', '.join(f'`{each}`' for each in key.users)}: " if key.users else ""
    return f"{taken}{key.meaning.rstrip('.')}"


def values(key: Key) -> str:
    """Describe the values that a key may have."""
    if key.names:
        return ", ".join(f"`{each}`" for each in key.names)
    kind = describe(key.type)
    if key.low == -math.inf:
        return kind
    ends = f"at least {key.low}" if key.high == math.inf else f"{key.low} to {key.high}"
    return f"{kind}, {ends}"


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "()"
    return "" if default is None else str(default)


if __name__ == "__main__":
    print(markdown(), end="")
