"""Measure an accelerator with everything this project does, the most valuable first.

python -m benchmarks.accelerator --minutes 8 --out FOLDER [--stages device,tests,step,sample,train]
    [--data PATH] [--workdir RUN] [--train_minutes M] [--peers PYTHON]
python -m benchmarks.accelerator --pack N --data FOLDER --out FILE [--most MIB]

Stages run one after the other, each in a process of its own and within its part of the time; each
writes FOLDER/STAGE.json after every measurement. On a CPU it is a rehearsal with small networks.
docs/accelerators.md says what comes out and how to read it.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.accelerator import data, plan, results
from benchmarks.harness import peer_client, records
from diffusion_jax.command_line import Parser, as_path, named, number, positive, run
from diffusion_jax.errors import UserError

PROBE = 180.0  # seconds that JAX may take to find its devices
GRACE = 60.0  # seconds beyond its time, after which a stage is ended


def main(arguments: list[str]) -> None:
    """Run the stages, or write a file of data for a machine without any."""
    given = _parse(arguments)
    if given.pack:
        if given.data is None:
            raise UserError("--pack needs a prepared TFDS folder; add --data=FOLDER")
        return print(data.pack(Path(given.data), given.out, given.pack, given.most))
    names, seconds = plan.chosen(given.stages), 60.0 * given.minutes
    plan.check_time(names, seconds)
    found = given.data or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "train" in names:
        data.check_path(found)
    peers = _peers(given.peers)
    _make_folder(given.out)
    began = time.monotonic()
    device = _probe()
    results.check_device(given.out, list(plan.STAGES), device)
    options = {
        "device": device,
        "out": str(given.out),
        "data": found,
        "workdir": str(given.workdir or given.out / "run"),
        "train_minutes": given.train_minutes,
        "peers": peers,
    }
    print(_first_line(device), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the stage too
    failed = []
    for coming in plan.following(names):
        left = seconds - (time.monotonic() - began)
        share = plan.share(coming, left)
        results.write(given.out / f"{coming[0]}.json", {"items": {}}, device)  # older ones are void
        if share < plan.STAGES[coming[0]].least:
            _fail(given.out, coming[0], device, "no time was left")
        elif _run_stage(coming[0], {**options, "seconds": share}):
            continue
        failed.append(coming[0])
    if failed:
        raise SystemExit(f"not complete: {', '.join(failed)}; see the JSON files in {given.out}")
    print(f"done: {', '.join(names)} in {given.out}")


def _parse(arguments: list[str]):
    parser = Parser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--minutes", type=number, default=8.0, help="for everything; default: 8")
    parser.add_argument("--out", type=as_path, required=True, help="the folder of the results")
    parser.add_argument("--stages", type=named, default=",".join(plan.STAGES))
    parser.add_argument(
        "--data",
        type=named,
        help="a folder of TFDS, all of its shards or some; a packed file; or 'digits'",
    )
    parser.add_argument("--workdir", type=as_path, help="the training's folder; default: OUT/run")
    parser.add_argument(
        "--train_minutes",
        type=number,
        default=0.0,
        help="of a training that goes on in later calls; default: what is left",
    )
    parser.add_argument("--peers", type=as_path, help="an interpreter that has torch, or none")
    packing = parser.add_argument_group("data for a machine without any")
    packing.add_argument("--pack", type=positive, metavar="N", help="training images to write")
    packing.add_argument("--most", type=number, metavar="MIB", help="the largest file allowed")
    return parser.parse_args(arguments)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; name a folder") from error


def _peers(given: Path | None) -> str:
    """Find an interpreter with torch: the one named, this one, or that of `make peers`."""
    if given == Path("none"):
        return ""
    if given is not None:
        if not given.is_file():
            raise UserError(f"no interpreter {given}; name one that has torch, or --peers=none")
        return str(given.absolute())
    if importlib.util.find_spec("torch"):
        return sys.executable
    return str(peer_client.PYTHON) if peer_client.PYTHON.is_file() else ""


def _probe() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.accelerator.stage", "probe"]
    try:
        done = subprocess.run(
            command, cwd=records.ROOT, timeout=PROBE, check=False, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"JAX does not find its devices within {PROBE:.0f} s; does another process use them?"
        ) from error
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise UserError(f"JAX finds no device: {''.join(last)}")
    return json.loads(done.stdout.splitlines()[-1])


def _first_line(device: dict[str, Any]) -> str:
    if device["platform"] == "cpu":
        return "no accelerator: a rehearsal on the CPU with small networks"
    return f"measuring {len(device['kinds'])} x {device['kinds'][0]}"


def _run_stage(name: str, options: dict[str, Any]) -> bool:
    """Run a stage; whether all of it was done."""
    seconds = options["seconds"]
    print(f"--- {name}: {seconds:.0f} s", flush=True)
    # A GPU is shared with PyTorch's process.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    command = [sys.executable, "-m", "benchmarks.accelerator.stage", name, json.dumps(options)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, cwd=records.ROOT, env=environment, stderr=errors, process_group=0
        ) as process,
    ):
        try:
            code = process.wait(seconds + GRACE)
            reason = f"exit code {code}"
        except subprocess.TimeoutExpired:
            code, reason = 1, f"stopped {GRACE:.0f} seconds after its time"
        finally:
            _end(process)
        errors.seek(0)
        said = [line.rstrip() for line in errors if line.strip()]
    if code:
        print(*said, sep="\n", file=sys.stderr)
        _fail(Path(options["out"]), name, options["device"], f"{reason}: {''.join(said[-1:])}")
    return code == 0


def _end(process: subprocess.Popen) -> None:
    """End a stage with all that it started; a training saves first."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
            for _ in range(100):
                process.poll()
                if not _alive(process.pid):
                    return
                time.sleep(0.1)


def _alive(group: int) -> bool:
    """Return whether a process of a group is left; one that waits to be reaped is not."""
    for each in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(each.pid) == group and each.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def _fail(out: Path, name: str, device: dict[str, Any], reason: str) -> None:
    """Record why a stage is not complete, beside what it has."""
    path = out / f"{name}.json"
    items = results.read(path).get("items", {})
    results.write(path, {"items": items, "not_complete": reason}, device)
    print(f"{name} is not complete: {reason}", flush=True)


if __name__ == "__main__":
    run(main)
