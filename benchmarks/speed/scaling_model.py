"""Scaling on paper: ring all-reduce, step time and efficiency on chips that we did not use.

Cited: `CHIPS` and `PAPER`. Everything else is computed from them and a network's counts.
"""

from typing import NamedTuple

FLOAT = 4  # bytes
BACKWARD = 2 / 3  # of a step's operations; what an all-reduce can hide behind


class Chip(NamedTuple):
    """A chip's bfloat16 peak in operations/s, memory of a JAX device in bytes, a link in bytes/s.

    A link is one link of the interconnect in one direction: inside a machine or a pod slice, and
    between the machines of 64 chips.
    """

    peak: float
    memory: float
    link: float
    link_of_64: float
    source: str


ISCA = "Jouppi et al. 2023 (ISCA), table 4"
H100 = "NVIDIA H100 SXM data sheet: NVLink 900 GB/s both ways; DGX H100: a 400 Gb/s port a GPU"

CHIPS = {
    "TPU v3": Chip(123e12, 16 * 2**30, 70e9, 70e9, f"Cloud TPU v3 page; {ISCA}: 4 links"),
    "TPU v4": Chip(275e12, 32 * 2**30, 50e9, 50e9, f"Cloud TPU v4 page; {ISCA}: 6 links"),
    "TPU v5e": Chip(197e12, 16e9, 50e9, 50e9, "Cloud TPU v5e page: 400 GB/s both ways, 4 links"),
    "TPU v5p": Chip(459e12, 95e9, 100e9, 100e9, "Cloud TPU v5p page: 1200 GB/s both ways, 6 links"),
    "H100": Chip(989e12, 80e9, 450e9, 50e9, H100),
}


class Measured(NamedTuple):
    """Steps/s of a batch on a TPU v3-8 (four chips), as the paper reports."""

    batch: int
    steps_per_second: float


# Ho et al. 2020, appendix B. The second is of the 114M network.
PAPER = {"cifar10": Measured(128, 21.0), "lsun256": Measured(64, 2.2)}
PAPER_CHIPS = 4
PAPER_NETWORK = {"cifar10": "cifar10", "lsun256": "lsun256", "lsun256_large": "lsun256"}


def all_reduce_seconds(size: float, count: int, link: float) -> float:
    """2 (n - 1) / n * bytes / bandwidth: a ring over one link, in one direction."""
    return 2 * (count - 1) / count * size / link


def used_of_peak(name: str, flops: dict[str, float]) -> float:
    """The share of a v3's peak that the paper's run of this network, or of its kind, reached.

    Args:
        flops: operations of a training step per image, by network.
    """
    kind = PAPER_NETWORK[name]
    batch, rate = PAPER[kind]
    return flops[kind] * batch * rate / (PAPER_CHIPS * CHIPS["TPU v3"].peak)


def efficiency(compute: float, exchange: float) -> dict[str, float]:
    """compute / (compute + exposed exchange), with none of the exchange hidden and with overlap."""
    hidden = min(exchange, BACKWARD * compute)
    return {
        "without_overlap": compute / (compute + exchange),
        "with_overlap": compute / (compute + exchange - hidden),
    }


def predict(name: str, parameters: int, flops: dict[str, float]) -> list[dict]:
    """Rows of one network: every chip, 8 and 64 of them, a fixed share and a fixed whole batch.

    8 chips take the paper's whole batch; 64 take eight times as much, or the same. Chips are taken
    to use the same share of their peak as the paper's, at any batch: a faster chip then waits more
    for its links, and small batches look better than they are.
    """
    batch = PAPER[PAPER_NETWORK[name]].batch
    used = used_of_peak(name, flops)
    rows = []
    for chip_name, chip in CHIPS.items():
        for count, images in ((8, batch / 8), (64, batch / 8), (64, batch / 64)):
            compute = flops[name] * images / (used * chip.peak)
            link = chip.link if count == 8 else chip.link_of_64
            exchange = all_reduce_seconds(FLOAT * parameters, count, link)
            rows.append(
                {
                    "chip": chip_name,
                    "chips": count,
                    "images_per_chip": images,
                    "compute_seconds": compute,
                    "all_reduce_seconds": exchange,
                    **efficiency(compute, exchange),
                }
            )
    return rows
