"""Training for a time: the number of steps is found once, and the plan is stretched to it."""

import json
import signal
import subprocess

import pytest
from own_pictures import own, pictures, script
from tiny import ROOT, run_inside, settings, train

from diffusion_jax.configuration import flatten, stretched
from diffusion_jax.errors import UserError
from diffusion_jax.run.pace import SHARE_OF_TIME, Pace, fitting_steps


@pytest.mark.parametrize("factor", [0.05, 0.5, 1, 3])
def test_a_stretched_plan_has_the_same_shares(factor):
    plan = settings(
        train__steps=4000,
        optimizer__warmup_steps=400,
        ema__decay=0.995,
        train__save_every=1000,
        train__sample_every=0,
    )
    steps = int(4000 * factor)
    changed = stretched(plan, steps)
    assert changed.train.steps == steps
    assert changed.optimizer.warmup_steps == steps / 10
    assert changed.train.save_every == steps / 4
    assert changed.train.sample_every == 0
    assert (1 - changed.ema.decay) * steps == pytest.approx((1 - 0.995) * 4000)
    same = [key for key in flatten(plan.to_dict()) if key.split(".")[0] != "train"]
    for key in set(same) - {"optimizer.warmup_steps", "ema.decay"}:
        assert flatten(changed.to_dict())[key] == flatten(plan.to_dict())[key]
    assert plan.train.steps == 4000


def test_a_plan_shorter_than_the_averages_horizon_does_not_average():
    assert stretched(settings(train__steps=4000, ema__decay=0.99), 30).ema.decay == 0.0


def test_steps_fill_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 130.0)
    steps = fitting_steps(2.0, Pace(compile_seconds=10.0, step_seconds=0.1), began=100.0)
    assert steps == pytest.approx(SHARE_OF_TIME * (120 - 30 - 10) / 0.1, abs=1)
    with pytest.raises(UserError, match=r"train.minutes is 0.6.* take 0.7"):
        fitting_steps(0.6, Pace(compile_seconds=10.0, step_seconds=0.1), began=100.0)


def stopped_at_its_first_line(command):
    """Start a run and stop it at its first step; how many steps it says there are."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, errors
    return int(line.partition("/")[2].partition(":")[0])


@pytest.mark.usefixtures("hurried_compiler")
def test_a_run_on_pictures_finds_them_again(tmp_path):
    changes = {"train__minutes": 60, "train__log_every": 1}
    command = script(
        "train", f"--workdir={tmp_path / 'run'}", *own(pictures(tmp_path / "d"), **changes)
    )
    steps = stopped_at_its_first_line(command)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["data"]["class_names"] == ["10", "cat", "dog"]
    assert stopped_at_its_first_line(command) == steps


@pytest.mark.usefixtures("hurried_compiler")
@pytest.mark.parametrize("stream", [False, True])
def test_a_resumed_run_keeps_its_number_of_steps(tmp_path, stream):
    changes = {"train__minutes": 60, "train__log_every": 1, "data__stream": stream}
    command = train(tmp_path / "run", **changes)
    steps = stopped_at_its_first_line(command)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["paced_steps"] == steps > 6
    assert written["config"]["train"]["steps"] == 6  # the plan, as it was given
    assert stopped_at_its_first_line(command) == steps
    for changed, what in [({"train__minutes": 2}, "train.minutes"), ({"train__steps": 7}, "steps")]:
        refused = run_inside(train(tmp_path / "run", **{**changes, **changed}))
        assert refused.returncode == 2
        assert f"{what} (" in refused.stderr
