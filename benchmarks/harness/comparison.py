"""Compare our speed with a peer's: shared arguments, calls in turn, the report."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import jax

from benchmarks.harness import peer_client, programs, records, roofline, timing
from diffusion_jax.command_line import Parser, as_path, named, positive, split_overrides
from diffusion_jax.configuration import Config, load
from diffusion_jax.configuration.check import check
from diffusion_jax.devices.compiler import enable_cache

Abouts = dict[str, dict[str, Any]]  # how each peer describes itself, by name


def parser(name: str, description: str | None, peers: bool = True, once: bool = False) -> Parser:
    """Make the parser of `python -m benchmarks.speed.NAME`."""
    made = records.parser(f"speed.{name}", description)
    made.add_argument("--config", type=named, metavar="FILE[:VARIANT]", required=True)
    made.add_argument("--batch", type=positive, help="default: the config's")
    made.add_argument("--rounds", type=positive, default=5)
    if peers:
        made.add_argument("--peer", choices=peer_client.CHOICES, default="none")
        made.add_argument("--peers", type=as_path, default=peer_client.PYTHON, metavar="PYTHON")
    if once:  # for scripts that measure new processes of themselves
        made.add_argument("--once", action="store_true", help="one measurement in this process")
        made.set_defaults(rounds=1)
    made.epilog = "Any key of the config: --config.key=value"
    return made


def parse_config(made: Parser, arguments: list[str]) -> tuple[argparse.Namespace, Config]:
    """Read the arguments, and the config with its overrides and batch size."""
    rest, overrides = split_overrides(arguments)
    given = made.parse_args(rest)
    if given.batch:
        overrides.append(("train.batch_size", str(given.batch)))
    settings = load(given.config, overrides)
    check(settings)
    return given, settings


def parse(made: Parser, arguments: list[str]) -> tuple[argparse.Namespace, programs.Job]:
    """Read the arguments and build what they name."""
    given, settings = parse_config(made, arguments)
    if vars(given).get("peer", "none") != "none":
        peer_client.check(given.peers)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer shares a GPU
    enable_cache()
    return given, programs.job(settings)


def start_peers(
    given: argparse.Namespace, job: programs.Job, stack: ExitStack
) -> list[peer_client.Peer]:
    """Start the processes of the chosen peer, which end with `stack`."""
    names = peer_client.CHOICES[given.peer]
    settings = peer_client.settings(job.settings, job.data) if names else {}
    return [stack.enter_context(peer_client.started(given.peers, name, settings)) for name in names]


def abouts(peers: list[peer_client.Peer]) -> Abouts:
    """Return how each peer describes itself."""
    return {each.name: each.about for each in peers}


def in_process(name: str, arguments: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a script of `speed` with `--once` in a new process and return what it prints last."""
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", *arguments, "--once"]
    return json.loads(records.run(command, environment).lines[-1][1])


def compare(
    job: programs.Job,
    program: programs.Program,
    peers: list[peer_client.Peer],
    command: tuple,
    given: argparse.Namespace,
    others: dict[str, Callable[[], Any]] | None = None,
    warm: bool = True,
) -> dict[str, Any]:
    """Time our program and the peers' command in turn, and compute the floor under ours.

    Args:
        others: programs of ours to time in the same rounds: "network", as many bare network calls,
            and "own", ours with a network that costs nothing.
        warm: call each once before, uncounted.
    """
    ceilings = roofline.Ceilings(job.settings.model.dtype)
    calls = {
        **timing.each_timed({"ours": program.call, **(others or {})}),
        **{each.name: lambda each=each: each.ask(*command) for each in peers},
        **ceilings.calls,
    }
    rounds = timing.in_turn(calls, given.rounds, warm)
    return {
        "seconds": timing.medians(rounds),
        **against([each.name for each in peers], rounds),
        **limits(program, ceilings.rates(rounds), timing.median(rounds, "ours")),
        **(timing.overheads(rounds, "ours") if others else {}),
        "rounds": rounds,
    }


def limits(program: programs.Program, rates: dict[str, float], seconds: float) -> dict[str, Any]:
    """Set our seconds against the floor and against the rate of matrix products (MFU)."""
    # The devices of a CPU share its cores, so one alone has the rate of all.
    count = 1 if jax.default_backend() == "cpu" else jax.device_count()
    moved = roofline.least_bytes(program.compiled) * jax.device_count() // count
    floor = roofline.floor(program.flops, moved, rates, count)
    return {
        "flops": program.flops,
        "rates": rates,
        "floor": floor,
        "seconds_over_floor": seconds / floor["seconds"],
        "mfu": program.flops / (seconds * rates["matmul"] * count),
    }


def against(names: Sequence[str], rounds: timing.Rounds, key: str = "seconds") -> dict[str, Any]:
    """Return the best peer and its amount divided by ours: above 1 ours is better."""
    if not names:
        return {}
    best = min(names, key=lambda name: timing.median(rounds, name, key))
    return {"peer": best, "ratio": timing.ratio(rounds, best, "ours", key)}


def report(
    name: str,
    given: argparse.Namespace,
    job: programs.Job,
    peers: Abouts,
    result: dict[str, Any],
    line: str,
) -> None:
    """Print and save the result, and end with what was compared and the line."""
    about = {
        "benchmark": name,
        "config": job.settings.name,
        "batch": job.size,
        "dtype": job.settings.model.dtype,
        "parameters": job.parameters,
        "peers": peers,
    }
    records.save(given.out, {**about, **result})
    for each, said in {"ours": about, **peers}.items():
        print(f"{each}: {said['parameters']:,} parameters")
    if "floor" in result:
        floor, times = result["floor"]["seconds"], result["seconds_over_floor"]
        print(f"floor {floor:.3g} s, ours takes {times:.2f} times as long; MFU {result['mfu']:.0%}")
    if "overhead" in result:
        whole, own = result["overhead"], result["own_over_network"]
        print(f"{whole:+.1%} over the network calls; without a network {own:.2%} of their time")
    print(f"{name} {job.settings.name} b{job.size}: {line}")


def amounts(each: dict[str, float], result: dict[str, Any], unit: str) -> str:
    """Format amounts as `ours 6.9 img/s, peer 6.5 img/s, ratio 1.06`."""
    said = f"ours {each['ours']:.4g} {unit}"
    if "peer" in result:
        said += f", peer {each[result['peer']]:.4g} {unit}, ratio {result['ratio']:.2f}"
    return said


def throughput(result: dict[str, Any], work: float, unit: str) -> str:
    """Format the same for so much work per call."""
    rates = {name: work / seconds for name, seconds in result["seconds"].items()}
    return amounts(rates, result, unit)
