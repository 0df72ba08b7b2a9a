import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny

from benchmarks.harness import comparison, peer_client, roofline
from benchmarks.harness.roofline import count_operations
from benchmarks.speed import train_step
from diffusion_jax.errors import UserError

SCRIPTS = [
    path
    for folder in ("speed", "studies")
    for path in sorted((tiny.ROOT / "benchmarks" / folder).glob("*.py"))
    if path.stem != "__init__"
]


@pytest.mark.usefixtures("hurried_compiler")
def test_a_benchmark_ends_with_its_line_and_leaves_json(tmp_path, capsys):
    out = tmp_path / "x.json"
    flags = ["--forward", "--batch=4", "--peer=none", "--rounds=1", f"--out={out}"]
    train_step.main([*tiny.flags(), *flags])
    result = json.loads(out.read_text())
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"forward digits b4: ours [\d.e+]+ img/s", line)
    assert float(line.split()[-2]) == pytest.approx(4 / result["seconds"]["ours"], rel=1e-3)
    assert len(result["rounds"]) == 1
    assert result["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_wrong_argument_is_one_line(path):
    script = importlib.import_module(f"benchmarks.{path.parent.name}.{path.stem}")
    with pytest.raises(UserError, match="see --help") as caught:
        script.main(["--wrong"])
    assert len(str(caught.value).splitlines()) == 1


def test_a_peer_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="make peers"):
        train_step.main([*tiny.flags(), "--peer=diffusers", "--peers=/no/python"])


def test_a_peer_that_dies_says_why():
    with (
        pytest.raises(UserError, match="No module named 'torch'"),
        peer_client.started(Path(sys.executable), "diffusers", {}),
    ):
        pass


def test_operations_of_a_product_a_loop_and_a_choice():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    product = 2 * 3 * 5 * 7

    def loop(a, b):
        return jax.lax.scan(lambda c, _: (c, c @ b), a, length=10)[1]

    def choice(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 7)))

    assert count_operations(jnp.matmul, a, b) == product
    assert count_operations(loop, a, b) == 10 * product
    assert count_operations(choice, a, b) == product


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolutions_gradients_cost_as_much_each_as_itself(stride):
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))

    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=numbers)

    forward = count_operations(convolve, x, kernel)
    assert forward == 2 * 2 * (8 // stride) ** 2 * 6 * 9 * 4
    loss = jax.value_and_grad(lambda *given: jnp.square(convolve(*given)).sum(), (0, 1))
    assert count_operations(loss, x, kernel) == 3 * forward


def test_the_ratio_is_of_speeds_and_the_fastest_peer_counts():
    """Twice as fast as the faster peer is 2, round by round, whatever the machine does between."""
    rounds = [
        {name: {"seconds": slow * n} for name, n in (("ours", 1), ("eager", 3), ("compiled", 2))}
        for slow in (1.0, 5.0, 2.0)
    ]
    assert comparison.against(["eager", "compiled"], rounds) == {"peer": "compiled", "ratio": 2.0}
    assert comparison.against([], rounds) == {}


def test_the_floor_is_the_longer_of_computing_and_moving():
    rates = {"matmul": 100.0, "convolution": 50.0, "bandwidth": 10.0}
    assert roofline.floor(800, 20, rates, 2) == {"compute": 4.0, "memory": 2.0, "seconds": 4.0}
    assert roofline.floor(800, 90, rates, 2)["seconds"] == 9.0
