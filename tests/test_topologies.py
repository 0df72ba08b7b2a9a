"""A run goes on alike wherever it is resumed: 1 and 8 devices, 1 and 2 processes, whole and split.

The data, t and noise are the same; what differs is the order in which numbers are added.
"""

from functools import partial

import jax
import numpy as np
import pytest
from faults import metrics
from trainers import copy, run, state

FIRST, LAST = 2, 22

# Large enough for something to be split; the rate of CIFAR-10's recipe. Where a gradient is nothing
# but rounding (attention does not depend on its key's bias), Adam makes steps of up to the rate
# itself, whatever the topology: at ten times this rate they would differ by 3e-5.
NETWORK = {
    "model__multipliers": "1,2",
    "optimizer__learning_rate": 2e-4,
    "train__save_every": 0,
}
HERE = {"processes": 1, "devices": 1}
ELSEWHERE = {
    "8 devices": {"devices": 8},
    "8 devices, split": {"devices": 8, "parallel": "fsdp"},
    "8 devices, pmap": {"devices": 8, "parallel": "pmap"},
    "2 processes": {"processes": 2},
    "2 processes, split": {"processes": 2, "parallel": "fsdp"},
    "2 processes with 4 devices": {"processes": 2, "devices": 4},
    "4 parts": {"train__accumulate": 4},
}
pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Two steps on one device."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    run(folder, **HERE, train__steps=FIRST, **NETWORK)
    return folder


@pytest.fixture(scope="module")
def straight(begun):
    """Twenty more steps there."""
    folder = copy(begun, begun.with_name("straight"))
    run(folder, **HERE, train__steps=LAST, **NETWORK)
    return metrics(folder), state(folder, LAST, **NETWORK)


def assert_close(lines, reached, straight):
    assert [line["step"] for line in lines] == list(range(1, LAST + 1))
    theirs = [line["loss"] for line in straight[0]]
    assert lines[FIRST]["loss"] == pytest.approx(theirs[FIRST], rel=1e-6)
    close = partial(np.testing.assert_allclose, rtol=0.0, atol=2e-5)
    jax.tree_util.tree_map_with_path(
        lambda path, ours, other: close(ours, other, err_msg=jax.tree_util.keystr(path)),
        reached,
        straight[1],
    )


@pytest.mark.parametrize("case", ELSEWHERE)
def test_resumed_elsewhere(begun, straight, case, tmp_path):
    folder = copy(begun, tmp_path / "run")
    run(folder, **ELSEWHERE[case], train__steps=LAST, **NETWORK)
    assert_close(metrics(folder), state(folder, LAST, **NETWORK), straight)


@pytest.mark.parametrize("case", ELSEWHERE)
def test_resumed_here(begun, straight, case, tmp_path):
    """The way back: begun there, gone on with on one device."""
    folder = tmp_path / "run"
    run(folder, **ELSEWHERE[case], train__steps=FIRST, **NETWORK)
    run(folder, **HERE, train__steps=LAST, **NETWORK)
    assert_close(metrics(folder), state(folder, LAST, **NETWORK), straight)
