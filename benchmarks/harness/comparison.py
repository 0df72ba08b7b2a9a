"""What the scripts that measure speed share: arguments, calls in turn, the last line."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import jax

from benchmarks.harness import awake, peer_client, programs, records, timing
from diffusion_jax import config
from diffusion_jax.commands import cache
from diffusion_jax.commands.arguments import (
    Parser,
    as_path,
    check_file,
    named,
    positive,
    split_overrides,
)
from diffusion_jax.config.check import check


def parser(name: str, description: str) -> Parser:
    """The arguments that all of them take."""
    made = Parser(prog=f"python -m benchmarks.speed.{name}", description=description)
    made.add_argument("--config", type=named, metavar="FILE[:VARIANT]", required=True)
    made.add_argument("--batch", type=positive, help="default: the config's")
    made.add_argument("--peer", choices=peer_client.CHOICES, default="none")
    made.add_argument(
        "--peers",
        type=as_path,
        default=peer_client.PYTHON,
        help="the peers' interpreter; see make peers",
    )
    made.add_argument("--rounds", type=positive, default=5)
    made.add_argument("--out", type=as_path, help="a JSON file")
    made.epilog = "Any key of the config: --config.key=value"
    return made


def parse(made: Parser, arguments: list[str]) -> tuple[argparse.Namespace, programs.Job]:
    """Read the arguments and build what they name."""
    rest, overrides = split_overrides(arguments)
    given = made.parse_args(rest)
    if vars(given).get("awake"):
        awake.check()
    if given.batch:
        overrides.append(("train.batch_size", str(given.batch)))
    settings = config.load(given.config, overrides)
    check(settings)
    if given.peer != "none":
        peer_client.check(given.peers)
        # A GPU is shared with the peer.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if given.out:
        check_file(given.out)
    cache.enable()
    return given, programs.job(settings)


def start_peers(
    given: argparse.Namespace, job: programs.Job, stack: ExitStack
) -> list[peer_client.Peer]:
    """The processes of the chosen peer, which end with `stack`."""
    names = peer_client.CHOICES[given.peer]
    settings = peer_client.settings(job.settings, job.data) if names else {}
    return [stack.enter_context(peer_client.started(given.peers, name, settings)) for name in names]


def abouts(peers: list[peer_client.Peer]) -> dict[str, dict[str, Any]]:
    """What each says of itself."""
    return {each.name: each.about for each in peers}


def compare(
    job: programs.Job,
    program: programs.Program,
    peers: list[peer_client.Peer],
    command: tuple,
    given: argparse.Namespace,
    others: dict[str, Callable[[], Any]] | None = None,
    warm: bool = True,
) -> dict[str, Any]:
    """Seconds of ours and of the peers' command in turn, and the floor under ours.

    Args:
        others: programs of ours that are measured in the same rounds.
        warm: call each once before, not counted.
    """
    ceilings = timing.Ceilings(job.settings.model.dtype)
    calls = {"ours": program.call, **(others or {})}
    all_calls = {
        **{name: lambda call=call: timing.timed(call) for name, call in calls.items()},
        **{each.name: lambda each=each: each.ask(*command) for each in peers},
        **ceilings.calls,
    }
    with awake.awake(given.awake):
        taken = timing.in_turn(all_calls, given.rounds, warm)
    # The devices of a CPU share its cores: one of them alone has all their rate.
    rates = ceilings.rates(taken)
    count = 1 if jax.default_backend() == "cpu" else jax.device_count()
    seconds = {name: timing.median(taken, name) for name in taken[0]}
    moved = timing.least_bytes(program.compiled) * jax.device_count() // count
    floor = timing.floor(program.flops, moved, rates, count)
    return {
        "seconds": seconds,
        **against([each.name for each in peers], taken),
        "cpu_ratios": {
            each.name: timing.ratio(taken, each.name, "ours", "cpu_seconds") for each in peers
        },
        "flops": program.flops,
        "rates": rates,
        "floor": floor,
        "seconds_over_floor": seconds["ours"] / floor["seconds"],
        "awake": given.awake,
        "mfu": program.flops / (seconds["ours"] * rates["matmul"] * count),
        "rounds": taken,
    }


def against(names: Sequence[str], taken: timing.Rounds, key: str = "seconds") -> dict[str, Any]:
    """The peer that needs least, and what it needs over what ours does: above 1 ours is better."""
    if not names:
        return {}
    best = min(names, key=lambda name: timing.median(taken, name, key))
    return {"peer": best, "ratio": timing.ratio(taken, best, "ours", key)}


def report(
    name: str,
    given: argparse.Namespace,
    job: programs.Job,
    peers: dict[str, dict[str, Any]],
    result: dict[str, Any],
    line: str,
    *more: str,
) -> None:
    """Print and save the result, say `more` and what was compared, and end with the one line.

    Args:
        peers: what each says of itself, by name.
    """
    settings, count = job.settings, job.parameters
    about = {
        "benchmark": name,
        "config": settings.name,
        "batch": settings.train.batch_size,
        "dtype": settings.model.dtype,
        "parameters": count,
        "peers": peers,
    }
    records.save(given.out, {**about, **result})
    print("\n".join(more), end="\n" * bool(more))
    if "rates" in result:
        rates = result["rates"]
        print(
            f"floor {result['floor']['seconds']:.3g} s, ours takes "
            f"{result['seconds_over_floor']:.2f} times as long; "
            f"MFU {result['mfu']:.0%} of {rates['matmul'] / 1e9:.0f} GFLOP/s; convolutions "
            f"{rates['convolution'] / 1e9:.0f} GFLOP/s, memory {rates['bandwidth'] / 1e9:.1f} GB/s"
        )
        print(f"ours: {count:,} parameters, {result['flops'] / 1e9:.4g} GFLOP a call")
    for each, said in peers.items():
        flops = ", ".join(f"{key} {n / 1e9:.4g} GFLOP" for key, n in said["flops"].items())
        print(f"{each}: {said['parameters']:,} parameters, {flops}")
    print(f"{name} {settings.name} b{settings.train.batch_size}: {line}")


def amounts(each: dict[str, float], result: dict[str, Any], unit: str) -> str:
    """`ours 6.9 img/s, peer 6.5 img/s, ratio 1.06` of these amounts."""
    said = f"ours {each['ours']:.4g} {unit}"
    if "peer" in result:
        said += f", peer {each[result['peer']]:.4g} {unit}, ratio {result['ratio']:.2f}"
    return said


def throughput(result: dict[str, Any], work: float, unit: str) -> str:
    """The same of so much work a call."""
    rates = {name: work / seconds for name, seconds in result["seconds"].items()}
    return amounts(rates, result, unit)


def add_awake(made: Parser) -> None:
    """For scripts that call `compare`."""
    made.add_argument("--awake", action="store_true", help="keep the cores from sleeping meanwhile")


def add_once(made: Parser) -> None:
    """For scripts that measure new processes of themselves, in one round unless told more."""
    made.add_argument("--once", action="store_true", help="one measurement in this process")
    made.set_defaults(rounds=1)


def answer(found: dict[str, Any]) -> None:
    """Tell `in_process` what was found."""
    print(json.dumps(found))


def in_process(name: str, arguments: list[str], **environment: str) -> dict[str, Any]:
    """What a script finds with `--once` in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", *arguments, "--once"]
    return json.loads(records.run(command, environment).lines[-1][1])
