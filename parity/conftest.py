"""The peers' interpreter, in whose environment the scripts here that import them run."""

import os
import subprocess
from pathlib import Path

import pytest

PEERS = os.environ.get("PEERS_PYTHON", "")


def pytest_configure():
    if not PEERS:
        pytest.exit("PEERS_PYTHON is not set: `make parity` installs the peers and sets it", 2)


@pytest.fixture(scope="session")
def run_peer():
    """Run a script of this folder with these arguments in the peers' environment."""

    def run(script: str, *arguments) -> None:
        subprocess.run([PEERS, Path(__file__).with_name(script), *arguments], check=True)

    return run
