"""Laws of several processes: they end together, soon, with one line and the right exit codes.

The processes are real, on the loopback address, and are killed for real.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from ports import free_port

from diffusion_jax.errors import LostPeer, UserError
from diffusion_jax.processes import cluster
from diffusion_jax.processes.rendezvous import meet

PEER = Path(__file__).parent / "peer.py"
HOST = "127.0.0.1"
AGAIN = "start all processes again with the same command to resume\n"
SLURM_PORTS = range(2**16 - 2**12, 2**16 - 1)  # JAX adds the job's number to the first


class End(NamedTuple):
    """How a process ended: its code, what it said, and the seconds since the kill or the start."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Played(NamedTuple):
    ends: list[End]
    listening: list[list[tuple[str, int]]]
    port: int


def play(
    folder: Path, scene: str, victim=None, how=signal.SIGKILL, only=(0, 1), timeout=50, slurm=False
) -> Played:
    """Run the scene in processes 0 and 1, and stop the victim once both are ready."""
    folder.mkdir()
    port = free_port(SLURM_PORTS) if slurm else free_port()
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "PYTHONPATH": str(PEER.parent.parent),
        # Neither must change anything.
        "http_proxy": "http://127.0.0.1:9",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    }
    processes = {}
    for index in only:
        if slurm:
            env |= {
                "SLURM_JOB_ID": str(port - SLURM_PORTS.start),
                "SLURM_STEP_NODELIST": HOST,
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(index),
                "SLURM_LOCALID": str(index),
            }
        address = "detect" if slurm else f"{HOST}:{port}"
        command = [sys.executable, str(PEER), scene, address, "2", str(index), str(timeout)]
        with (folder / f"out{index}").open("w") as out, (folder / f"err{index}").open("w") as err:
            processes[index] = subprocess.Popen(command, env=env, stdout=out, stderr=err)
    try:
        listening = []
        if victim is not None:
            for index, process in processes.items():
                until_ready(process, folder / f"out{index}", folder / f"err{index}")
            listening = [listens(each.pid) for each in processes.values()]
            time.sleep(0.3)
            processes[victim].send_signal(how)
        start = time.monotonic()
        ends = []
        for index in sorted(processes, key=lambda each: each == victim):
            if index == victim and how == signal.SIGSTOP:
                processes[index].send_signal(signal.SIGCONT)
            code = processes[index].wait(180)
            texts = [(folder / f"{name}{index}").read_text() for name in ("out", "err")]
            ends.append(End(code, *texts, time.monotonic() - start))
    finally:
        for each in processes.values():
            each.kill()
    return Played(ends, listening, port)


def until_ready(process, out: Path, err: Path):
    while "ready" not in out.read_text():
        assert process.poll() is None, err.read_text()
        time.sleep(0.05)


def until(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def listens(pid: int) -> list[tuple[str, int]]:
    found = psutil.Process(pid).net_connections(kind="tcp")
    return [tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN]


KILLED = [
    (scene, victim)
    for scene in ("compute", "work_on_host", "compile_long", "stay")
    for victim in (0, 1)
] + [("hang", 1)]
FROZEN = [("compute", 1), ("work_on_host", 0)]
TOGETHER = ("finish", "diverge", "refuse", "fail_alone", "crash_alone")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """All scenes, a few at a time; the ones with long waits first."""
    folder = tmp_path_factory.mktemp("cluster")
    jobs = {}
    with ThreadPoolExecutor(5) as pool:

        def add(name, *arguments, **options):
            jobs[name] = pool.submit(play, folder / str(len(jobs)), *arguments, **options)

        for scene, victim in FROZEN:
            add(("frozen", scene, victim), scene, victim, how=signal.SIGSTOP)
        for scene, victim in KILLED:
            value = f":{victim}" if scene == "stay" else ""
            add(("killed", scene, victim), scene + value, victim)
        for scene in TOGETHER:
            add(scene, scene)
        for index in (0, 1):
            add(("single", index), "finish", only=[index], timeout=2)
        add("slurm", "finish", slurm=True)
        yield lambda *name: jobs[name if len(name) > 1 else name[0]].result()


def lost(victim: int, end: End) -> bool:
    line = rf"error: process {victim} of 2 was lost( after step \d+)?; {AGAIN}"
    return end.code == LostPeer.exit_code and re.fullmatch(line, end.stderr) is not None


@pytest.mark.parametrize(("scene", "victim"), KILLED)
def test_a_killed_process_ends_the_other_at_once(played, scene, victim):
    survivor, killed = played("killed", scene, victim).ends
    assert lost(victim, survivor), survivor
    assert survivor.seconds < 10
    assert killed.code == -signal.SIGKILL


@pytest.mark.parametrize(("scene", "victim"), FROZEN)
def test_a_frozen_process_ends_the_other_within_a_minute(played, scene, victim):
    survivor, frozen = played("frozen", scene, victim).ends
    assert lost(victim, survivor), survivor
    assert survivor.seconds < 45
    assert frozen.code == LostPeer.exit_code  # once it goes on


def test_the_line_tells_the_last_step(played):
    survivor, _ = played("killed", "work_on_host", 0).ends
    assert survivor.stderr == f"error: process 0 of 2 was lost after step 3; {AGAIN}"


def test_nobody_listens_on_all_interfaces(played):
    result = played("killed", "work_on_host", 1)
    first, second = result.listening
    assert (HOST, result.port) in [(ip.removeprefix("::ffff:"), port) for ip, port in first]
    assert not {"0.0.0.0", "::"} & {ip for ip, _ in first + second}


@pytest.mark.parametrize("name", ["finish", "slurm"])
def test_all_end_in_order(played, name):
    for end in played(name).ends:
        assert (end.code, end.stderr) == (0, "")
        assert "ready 0.5" in end.stdout  # the mean of 0 and 1


def test_an_end_that_all_come_to_is_nobody_s_loss(played):
    for end in played("diverge").ends:
        assert (end.code, end.stderr) == (3, "error: training diverged\n")


def test_what_the_first_says_holds_for_all(played):
    for end in played("refuse").ends:
        assert "ready ['text', 7]" in end.stdout
        assert (end.code, end.stderr) == (2, "error: the folder is locked\n")


def test_who_fails_alone_ends_the_others_soon(played):
    other, failed = played("fail_alone").ends
    assert (failed.code, failed.stderr) == (2, "error: data.dir is missing\n")
    line = "error: process {} of 2 ended with exit code {} after step 3; " + AGAIN
    assert (other.code, other.stderr) == (LostPeer.exit_code, line.format(1, 2))
    crashed, other = played("crash_alone").ends
    assert crashed.code == 1
    assert crashed.stderr.endswith("RuntimeError: a bug\n")
    assert (other.code, other.stderr) == (LostPeer.exit_code, line.format(0, 1))


@pytest.mark.parametrize(
    ("index", "line"),
    [
        (0, "error: process 1 of 2 did not connect within 2 s; "),
        (1, "error: process 0 of 2 does not answer at 127.0.0.1:{port} within 2 s: "),
    ],
)
def test_who_stays_alone_at_the_start_says_so(played, index, line):
    result = played("single", index)
    (end,) = result.ends
    assert end.code == LostPeer.exit_code
    assert end.stderr.startswith(line.format(port=result.port))
    assert end.stderr.count("\n") == 1


def test_wrong_numbers_are_refused_and_strangers_ignored():
    address = (HOST, free_port())
    with ThreadPoolExecutor() as pool, ExitStack() as stack:

        def call(text: bytes):
            caller = stack.enter_context(socket.create_connection(address, timeout=10))
            caller.sendall(text)

        first = pool.submit(meet, address, 0, 3, 60.0)
        until(lambda: (HOST, address[1]) in listens(os.getpid()))
        call(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(UserError, match="process 0 has --num_processes=3, this one 4"):
            meet(address, 1, 4, 60.0)
        call(b'["hello", 1, 3]\n')
        with pytest.raises(UserError, match="another process has --process_id=1 already"):
            meet(address, 1, 3, 60.0)
        meet(address, 2, 3, 60.0)
        links, _ = first.result()
        assert sorted(links) == [1, 2]


def test_those_who_do_not_connect_are_named():
    with pytest.raises(LostPeer, match=r"^processes 1, 2 of 3 did not connect within 0\.1 s; "):
        meet((HOST, free_port()), 0, 3, 0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((f"{HOST}:1234", 2, None), "--process_id missing; give --coordinator, --num_proc"),
        ((None, None, 1), "--coordinator and --num_processes missing"),
        ((f"{HOST}:1234", 2, 2), "--process_id must lie between 0 and 1, got 2"),
        ((f"{HOST}:1234", 2, -1), "--process_id must lie between 0 and 1, got -1"),
        ((f"{HOST}:1234", 0, 0), "--num_processes must be at least 1, got 0"),
        ((HOST, 2, 0), f"--coordinator must be HOST:PORT, e.g. 10.0.0.1:1234, got '{HOST}'"),
        ((f"{HOST}:0", 2, 0), "--coordinator must be HOST:PORT"),
        ((f"{HOST}:70000", 2, 0), "--coordinator must be HOST:PORT"),
        (("::1:1234", 2, 0), "--coordinator must be HOST:PORT"),
        (
            ("0.0.0.0:1234", 2, 0),
            "process 0 cannot listen at 0.0.0.0:1234: that stands for all interfaces",
        ),
        (
            ("[::]:1234", 2, 0),
            r"process 0 cannot listen at \[::\]:1234: that stands for all interfaces",
        ),
        (("192.0.2.1:1234", 2, 0), "process 0 cannot listen at 192.0.2.1:1234: Cannot assign"),
    ],
)
def test_bad_places_are_one_line(given, message):
    with pytest.raises(UserError, match=f"^{message}") as caught:
        cluster.join(*given)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_one_line():
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"{port}: Address already in use; --coordinator"):
            cluster.join(f"{HOST}:{port}", 2, 0)


@pytest.mark.parametrize("given", [(None, None, None), (f"{HOST}:1234", 1, 0)])
def test_one_process_stays_alone(given, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for name in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster.join(*given)
    assert cluster.is_first()
    assert cluster.on_first_process(lambda: "alone") == "alone"
    cluster.settle()
    cluster.leave(0)


@pytest.mark.parametrize(
    "given",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
        {"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"},
        {"SLURM_NTASKS": "2"},  # of a job, but not started as one of its tasks
        {},
    ],
)
def test_a_jax_that_cannot_find_the_others_never_trains_alone_among_many(given, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.clusters", None)  # importing it fails
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if len(given) == 2 or "TPU_WORKER_HOSTNAMES" in given:
        with pytest.raises(UserError, match=r"2 processes were started.*give --coordinator"):
            cluster.join(None, None, None)
    else:
        cluster.join(None, None, None)
        assert cluster.is_first()
