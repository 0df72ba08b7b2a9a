"""The lines in which `check-data` reports what it found."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from diffusion_jax.data.dataset import Look
from diffusion_jax.data.inspection import Inspection, Item, duplicates, split_order
from diffusion_jax.data.unreadable import MOST_NAMED
from diffusion_jax.errors import counted

MOST_GROUPS, MOST_CLASSES = 5, 20  # groups of duplicates, and classes of a split, that are listed


def report(found: Inspection, place: str, look: Look) -> Iterator[str]:
    """Describe the data, one fact a line.

    Args:
        place: the folder or file, for the first line.
        look: how training would see the images.
    """
    readable = [item for item in found.items if not item.fault]
    broken = [item for item in found.items if item.fault]
    yield (
        f"{place}: {counted(len(found.items) + found.left_out, 'file')} = "
        f"{counted(len(readable), 'image')} + {len(broken):,} that cannot be read + "
        f"{found.left_out:,} left out"
        if found.levels is None
        else f"{place}: {counted(len(readable), 'image')}"
    )
    if found.levels is None:
        yield f"kinds: {_counted(os.path.splitext(item.name)[1].lower() for item in found.items)}"
        yield f"modes: {_counted(item.mode or 'unknown' for item in found.items)}"
    if readable:
        yield from _sizes(readable, look.size)
        yield from _levels(found)
        yield from _splits(readable, found)
        yield from _traits(readable, look)
        yield from _duplicates(duplicates(readable))
    if found.note:
        yield found.note
    if broken:
        yield f"cannot be read: {len(broken):,}"
        yield from (f"  {item.name}: {item.fault}" for item in broken[:MOST_NAMED])
    if len(broken) > MOST_NAMED:
        yield f"  and {len(broken) - MOST_NAMED:,} more"


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(names).most_common()) or "none"


def _sizes(readable: Sequence[Item], wanted: int) -> Iterator[str]:
    sizes = Counter(item.size for item in readable)
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    (common, count), *_ = sizes.most_common(1)
    if len(sizes) == 1:
        yield f"sizes (width x height): all {_size(common)}"
    else:
        yield (
            f"sizes (width x height): {len(sizes):,} different; smallest {_size(by_area[0])}, "
            f"most common {_size(common)} ({counted(count, 'image')}), largest {_size(by_area[-1])}"
        )
    if small := sum(count for size, count in sizes.items() if min(size) < wanted):
        yield f"smaller than {wanted}x{wanted}: {small:,}, will be enlarged"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _levels(found: Inspection) -> Iterator[str]:
    if found.levels is not None:
        used = found.levels.nonzero()[0]
        yield f"levels: {len(used)} of 256 are used, {used[0]} to {used[-1]}"


def _splits(readable: Sequence[Item], found: Inspection) -> Iterator[str]:
    if found.refused:
        return
    totals = Counter(item.split for item in readable)
    for split in sorted(totals, key=split_order):
        counts = Counter(item.label for item in readable if item.split == split)
        parts = [
            f"{number}{f' = {name}' * (name != str(number))}: {counts[number]:,}"
            for number, name in enumerate(found.classes[:MOST_CLASSES])
        ]
        more = len(found.classes) - MOST_CLASSES
        parts += [f"{more:,} more classes"] if more > 0 else []
        yield f"split {split}: {counted(totals[split], 'image')}; " + (
            f"classes {', '.join(parts)}" if parts else "no classes"
        )


def _traits(readable: Sequence[Item], look: Look) -> Iterator[str]:
    effect = {
        "animated": "the first frame is used",
        "rotated": "turned upright by their EXIF orientation",
        "transparent": f"put on {look.background}"
        if look.background
        else "transparency is ignored",
    }
    counts = Counter(trait for item in readable for trait in item.traits)
    yield from (f"{name}: {counts[name]:,}, {effect[name]}" for name in effect if counts[name])


def _duplicates(groups: list[list[Item]]) -> Iterator[str]:
    extra = sum(len(group) - 1 for group in groups)
    if not groups:
        yield "duplicates: none"
        return
    yield f"duplicates: {extra:,} with the same pixels as another image: {_named(groups)}"
    of_splits = [list({item.split: item for item in group}.values()) for group in groups]
    if leaks := [group for group in of_splits if len(group) > 1]:
        yield (
            f"leak between splits: {counted(len(leaks), 'image')}; keep each in one split only, so "
            f"that training never sees test images: {_named(leaks)}"
        )


def _named(groups: list[list[Item]]) -> str:
    shown = [
        " = ".join([item.name for item in group[:4]] + ["..."] * (len(group) > 4))
        for group in groups[:MOST_GROUPS]
    ]
    more = len(groups) - MOST_GROUPS
    return "; ".join([*shown, f"and {more:,} more"] if more > 0 else shown)
