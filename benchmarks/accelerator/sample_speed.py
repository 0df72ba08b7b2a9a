"""Stage `sample`: ancestral sampling with CIFAR-10's network, in one scan and in other ways."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

from benchmarks.accelerator.networks import job, rounds, start_peer
from benchmarks.harness import timing
from benchmarks.speed.sample import bare, in_one_scan, make_chain
from diffusion_jax.devices.compiler import enable_cache

# Network calls and images; what is worth most comes first.
CHAINS = ((20, 256), (50, 256), (20, 1024), (50, 1024), (1000, 256), (1000, 1024))
SMALL_CHAINS = ((5, 8), (10, 8))
WARMED = 100  # calls, above which a chain is measured once, without a first one for warming up


def items(options, results, stack: ExitStack) -> dict:
    """Chains by their calls and images."""
    enable_cache()
    peer_of = cache(partial(peer_for, options, stack))
    chains = SMALL_CHAINS if options.small else CHAINS
    return {
        f"{calls}_calls_b{batch}": partial(chain, options, results, calls, batch, peer_of)
        for calls, batch in chains
    }


def chain(options, results, calls: int, batch: int, peer_of) -> dict[str, Any]:
    """Measure a chain in one scan, its bare network calls, and PyTorch's loop, in turn."""
    if expected_seconds(results.items, calls * batch) > results.left():
        return {"left_out": "no time was left"}
    made = make_chain(job(options, batch))
    with ThreadPoolExecutor() as background:  # all compile at the same time, then take turns
        starting = background.submit(peer_of, batch)
        ways = {"scan": in_one_scan, "network": bare}
        programs = {name: background.submit(way, made, calls) for name, way in ways.items()}
    timed = {name: partial(timing.timed, each.result().call) for name, each in programs.items()}
    peers, said = starting.result()
    for each in peers:
        timed["peer"] = partial(each.ask, "sample", batch, calls)
    short = calls <= WARMED
    found = timing.in_turn(timed, rounds(options).rounds if short else 1, warm=short)
    seconds = {name: timing.median(found, name) for name in timed}
    return {
        "images_per_second": batch / seconds["scan"],
        "scan_over_network_calls": timing.ratio(found, "scan", "network"),
        **({"ratio": timing.ratio(found, "peer", "scan")} if "peer" in timed else {}),
        "seconds": seconds,
        "calls": calls,
        "batch": batch,
        **said,
        "rounds": found,
    }


def expected_seconds(items: dict[str, Any], work: int) -> float:
    """Return the seconds of `work` calls of single images, from the last chain; 0 for the first."""
    done = [item for item in items.values() if "seconds" in item]
    if not done:
        return 0.0
    last = done[-1]
    return sum(last["seconds"].values()) * work / (last["calls"] * last["batch"])


def peer_for(options, stack: ExitStack, batch: int):
    """Start PyTorch's network for chains of `batch` images; all chains share the process."""
    return start_peer(options, job(options, batch), stack, "sample", batch, 2)
