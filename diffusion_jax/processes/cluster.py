"""Joining several processes that train one model: the only file that knows `jax.distributed`.

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
    """One process's place among all; None for its devices means all of the machine's."""

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
    """Meet the other processes, if there are any; call it before JAX looks for its devices.

    With no arguments given a Slurm job or a TPU pod is detected; elsewhere a process is alone.

    Args:
        coordinator: `HOST:PORT`, an address of process 0 that all can reach.
        timeout: seconds to wait for the others.

    Raises:
        UserError: the arguments are wrong, or the address cannot be listened at.
        LostPeer: the others did not come or died.
    """
    global _heartbeat
    place = _given(coordinator, num_processes, process_id) or _detected(timeout)
    if place is None or place.count == 1:
        return
    links, found = meet(place.address, place.index, place.count, timeout)
    _heartbeat = heartbeat.Heartbeat(place.index, place.count, links)
    _initialize(found, place)


def is_first() -> bool:
    """Whether this is process 0, which writes; True if it is alone."""
    return _heartbeat is None or _heartbeat.index == 0


def on_first_process(work: Callable[[], T]) -> T:
    """What `work` returns in process 0, which alone runs it while the others wait.

    Args:
        work: returns something that JSON can carry.

    Raises:
        UserError: `work` raised it; all processes raise the same.
    """
    return work() if _heartbeat is None else _heartbeat.on_first_process(work)


def note(step: int) -> None:
    """Remember the last finished step, for the line that reports a lost process."""
    if _heartbeat is not None:
        _heartbeat.step = step


def settle() -> None:
    """Call it on an unexpected error: does not return if a lost process may have caused it."""
    if _heartbeat is not None:
        _heartbeat.settle()


def leave(code: int) -> None:
    """Part from the others before the program ends with exit code `code`.

    Returns once all have come to their end. Where they do not, and `code` is one that a process
    may come to alone, this process ends here; the others follow as for a lost one.
    """
    if _heartbeat is None:
        return
    if not _heartbeat.leave(code):
        heartbeat.exit_now(code)
    # All is done and said: whoever is lost from here on must not change this process's end.
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
            raise UserError(f"{' and '.join(missing)} missing; give {', '.join(flags)} or none")
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
    """The place that JAX finds in the environment of a Slurm job or a TPU pod.

    `jax.distributed.initialize()` without arguments would ask a Kubernetes server as well, and
    fail where nobody is alone, so JAX's detectors are asked one by one.
    """
    try:
        from jax._src.clusters import GceTpuCluster, GkeTpuCluster, SlurmCluster
    except ImportError as error:  # these names are not public; a newer JAX may move them
        if (count := _announced()) > 1:
            raise UserError(
                f"{count} processes were started, but this version of JAX cannot find their "
                "places; give --coordinator, --num_processes and --process_id"
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
            f"the {kind.name} environment does not tell this process's place: {error}; give "
            "--coordinator, --num_processes and --process_id"
        ) from error


def _announced() -> int:
    """Return how many processes the variables of a Slurm step or a TPU pod announce."""
    tasks = os.environ.get("SLURM_NTASKS", "") if "SLURM_PROCID" in os.environ else ""
    pod = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return max(int(tasks) if tasks.isdecimal() else 1, len(pod.split(",")))


def _is_here(kind: Any) -> bool:
    try:
        return kind.is_env_present()
    except (ImportError, OSError):  # a TPU without the server that tells about its pod
        return False


def _initialize(coordinator: Address, place: _Place) -> None:
    # Stops are agreed upon in the loop; JAX's service would take SIGTERM away from it.
    jax.config.update("jax_enable_preemption_service", False)
    if place.index:
        coordinator = ("127.0.0.1", open_proxy(coordinator))
    # gRPC would ask the proxy of an HPC site for its neighbours, and hang.
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
            # Slower than our heartbeat: it serves only where that cannot run.
            heartbeat_timeout_seconds=45,
            shutdown_timeout_seconds=30,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"jax.distributed does not start at {address}: {reason}") from error
