"""What every test shares: four fake CPU devices, a compilation cache, a hurried compiler."""

import os
import platform
import re
from functools import cache
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache" / "jax"
DEVICES_FLAG = "--xla_force_host_platform_device_count=4"

# Subprocesses inherit both, so that a law about devices is tested on the same machine everywhere.
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES_FLAG}".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)

import jax  # noqa: E402
import pytest  # noqa: E402
from tiny import run_inside, train  # noqa: E402

import diffusion_jax as dj  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

# The slowest files, most of which train or start processes. They come first, so that in the end no
# worker is left alone with a long file; `make test-fast` leaves them out.
LONG = (
    "test_plugins",
    "test_run",
    "test_train_python",
    "test_commands",
    "test_cluster",
    "test_faults",
    "test_faults_disk",
    "test_faults_peers",
    "test_end_to_end",
    "test_sampling",
    "test_evaluate",
    "test_devices",
    "test_pace",
    "test_accelerator",
    "test_old_runs",
    "test_initial",
    "test_changed_data",
    "test_class_names",
    "test_channels",
    "test_announcements",
    "test_paths",
    "test_zero_terminal_run",
    "test_certify",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by markers
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if item.path.stem in LONG:
            item.add_marker("long")


def pytest_runtest_setup(item):
    if item.get_closest_marker("pinned") and (why := unlike_the_pinned()):
        pytest.skip(why)


@cache
def unlike_the_pinned():
    """Say how this machine differs from those that `pinned` tests were written on."""
    lock = (Path(__file__).parent.parent / "requirements.lock").read_text()
    versions = re.findall(r"^jax==([\d.]+)", lock, re.MULTILINE)
    wanted = {
        "jax": (jax.__version__, versions),
        "platform": (jax.default_backend(), ["cpu"]),
        "processor": (platform.machine(), ["x86_64"]),
        "C library": (platform.libc_ver()[0], ["glibc"]),
    }
    differ = [
        f"{name} is {here or 'another'}, not {' or '.join(known)}"
        for name, (here, known) in wanted.items()
        if here not in known
    ]
    return "; ".join(differ)


@pytest.fixture(scope="module")
def hurried_compiler():
    """Programs compiled with few optimisations, in subprocesses too: in half the time.

    For tests of what goes on around a network, whose steps are few. Tests of numbers, of devices
    and of resuming compile as a person's runs do, and no hurried program is left to them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny run on the digits that the command trained."""
    made = tmp_path_factory.mktemp("run") / "digits"
    done = run_inside(train(made))
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def run(folder):
    """The same, loaded."""
    return dj.load(folder)


@pytest.fixture(scope="module")
def test_split():
    """The digits' test split."""
    return dj.load_data("digits", "test")
