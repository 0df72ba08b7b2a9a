"""Joining several processes that train one model: the only file that calls `jax.distributed`.

The processes meet at the coordinator's address, which JAX's coordinator takes over afterwards.
Each watches the others through its `Heartbeat`, because JAX hangs or aborts when one is lost.
"""

import os
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from diffusion_jax.errors import UserError
from diffusion_jax.processes import heartbeat
from diffusion_jax.processes.coordinator_proxy import open_proxy
from diffusion_jax.processes.rendezvous import Address, meet, text

START = 50.0  # seconds that the processes wait for each other at the start

T = TypeVar("T")

_heartbeat: heartbeat.Heartbeat | None = None


class _Place(NamedTuple):
    """One process among `count`: the coordinator, and its own index and devices (None: all)."""

    address: Address
    count: int
    index: int
    devices: list[int] | None = None


def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout: float = START,
) -> None:
    """Connect to the other processes, if there are any; call it before JAX creates its devices.

    Without arguments, a Slurm job or a TPU pod is detected; elsewhere the process runs alone.

    Args:
        coordinator: `HOST:PORT`, an address of process 0 that all can reach.
        timeout: seconds to wait for the others.

    Raises:
        UserError: the arguments are wrong, or process 0 cannot listen at the address.
        LostPeer: another process did not connect in time, or died.
    """
    global _heartbeat
    place = _given(coordinator, num_processes, process_id) or _detected(timeout)
    if place is None or place.count == 1:
        return
    links, found = meet(place.address, place.index, place.count, timeout)
    _heartbeat = heartbeat.Heartbeat(place.index, place.count, links)
    _initialize(found, place)


def is_first() -> bool:
    """Return whether this is process 0, which writes the files; True if it runs alone."""
    return _heartbeat is None or _heartbeat.index == 0


def on_first_process(work: Callable[[], T]) -> T:
    """Run `work` in process 0 only, and return its result in all processes, which wait for it.

    Args:
        work: a function whose result is serialisable as JSON.

    Raises:
        UserError: `work` raised it; all processes raise the same.
    """
    return work() if _heartbeat is None else _heartbeat.on_first_process(work)


def check_joined() -> None:
    """Raise a `UserError` if JAX knows of other processes, but `join` was not called."""
    if _heartbeat is None and jax.process_count() > 1:
        raise UserError("several processes train together by train.py only; see docs/scaling.md")


def note(step: int) -> None:
    """Record the last finished step, for the error message about a lost process."""
    if _heartbeat is not None:
        _heartbeat.step = step


def settle() -> None:
    """Wait a second after an unexpected error; do not return if another process was lost."""
    if _heartbeat is not None:
        _heartbeat.settle()


def leave(code: int) -> None:
    """Tell the others that this process ends with exit code `code`, and wait for their codes.

    Returns once all processes have sent theirs. If they do not in time, and `code` is in
    `heartbeat.ALONE`, this process exits here, and the others exit as if it had been lost.
    """
    if _heartbeat is None:
        return
    if not _heartbeat.leave(code):
        heartbeat.exit_now(code)
    # All have sent their codes. A process lost from here on must not change this one's exit code.
    guard = threading.Timer(heartbeat.GRACE, heartbeat.exit_now, [code])
    guard.daemon = True
    guard.start()
    jax.distributed.shutdown()
    _heartbeat.close()
    guard.cancel()


def _given(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> _Place | None:
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [flag for flag, value in flags.items() if value is None]
    if coordinator is None or num_processes is None or process_id is None:
        if len(missing) < len(flags):
            raise UserError(
                f"{' and '.join(missing)} missing; give {', '.join(flags)}, or none of them"
            )
        return None
    if num_processes < 1:
        raise UserError(f"--num_processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id must lie between 0 and {num_processes - 1}, got {process_id}"
        )
    return _Place(_address(coordinator), num_processes, process_id)


def _address(given: str) -> Address:
    match = re.fullmatch(r"(?:\[(.+)\]|([^:]+)):(\d{1,5})", given)
    if match is None or not 0 < int(match[3]) < 2**16:
        raise UserError(f"--coordinator must be HOST:PORT, e.g. 10.0.0.1:1234, got '{given}'")
    return match[1] or match[2], int(match[3])


def _detected(timeout: float) -> _Place | None:
    """Return the place that JAX detects in a Slurm job or a TPU pod, None elsewhere.

    `jax.distributed.initialize()` without arguments would query a Kubernetes server as well, and
    would fail for a process that runs alone. So JAX's detectors are called one by one.
    """
    try:
        from jax._src.clusters import GceTpuCluster, GkeTpuCluster, SlurmCluster
    except ImportError as error:  # these names are not public; a newer JAX may move them
        if (count := _announced()) > 1:
            raise UserError(
                f"{count} processes were started, but this version of JAX cannot find their "
                "ids; give --coordinator, --num_processes and --process_id"
            ) from error
        return None
    kind = next(filter(_is_here, (SlurmCluster, GkeTpuCluster, GceTpuCluster)), None)
    if kind is None:
        return None
    try:
        count = kind.get_process_count()
        if count == 1:
            return None
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = kind.get_coordinator_address(int(timeout), port)
        device = None if "JAX_LOCAL_DEVICE_IDS" in os.environ else kind.get_local_process_id()
        index = kind.get_process_id()
        return _Place(_address(address), count, index, None if device is None else [device])
    except (OSError, LookupError, RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot find the coordinator and this process's id in the {kind.name} environment: "
            f"{error}; give --coordinator, --num_processes and --process_id"
        ) from error


def _announced() -> int:
    """Return how many processes the variables of a Slurm step or a TPU pod announce."""
    tasks = os.environ.get("SLURM_NTASKS", "") if "SLURM_PROCID" in os.environ else ""
    pod = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return max(int(tasks) if tasks.isdecimal() else 1, len(pod.split(",")))


def _is_here(kind: Any) -> bool:
    try:
        return kind.is_env_present()
    except (ImportError, OSError):  # a TPU without the metadata server that describes its pod
        return False


def _initialize(coordinator: Address, place: _Place) -> None:
    # The training loop handles SIGTERM in all processes; JAX's service would intercept it.
    jax.config.update("jax_enable_preemption_service", False)
    if place.index:
        coordinator = ("127.0.0.1", open_proxy(coordinator))
    # gRPC would otherwise connect through the HTTP proxy of an HPC site, and hang.
    others = os.environ.get("no_grpc_proxy", "")  # noqa: SIM112
    os.environ["no_grpc_proxy"] = ",".join(filter(None, (others, coordinator[0])))  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)
    address = text(coordinator)
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            coordinator_bind_address=address,
            num_processes=place.count,
            process_id=place.index,
            local_device_ids=place.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(START),
            # Longer than our heartbeat's, so that JAX's acts only where ours cannot run.
            heartbeat_timeout_seconds=45,
            shutdown_timeout_seconds=30,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"jax.distributed does not start at {address}: {reason}; try another port"
        ) from error
