"""What is measured on an accelerator, rehearsed: checks, stages and their time, bad input."""

import importlib.util
import json
import sys
import time
from contextlib import ExitStack

import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import checks, networks, plan, results, sample_speed
from benchmarks.accelerator.stage import Options
from benchmarks.harness import records
from diffusion_jax.errors import UserError

CPU = {"platform": "cpu", "kinds": ["cpu"], "driver": ""}


@pytest.mark.accelerator
@pytest.mark.parametrize("name", checks.CHECKS)
def test_numbers_on_this_device(name):
    """Also on an accelerator: `python -m pytest -m accelerator`."""
    found = checks.CHECKS[name]()
    assert found["holds"], found


def test_a_check_that_does_not_hold_is_a_failure():
    with pytest.raises(AssertionError, match="2 is above 1"):
        checks.holding(lambda: checks.judged(2.0, 1.0))
    assert not checks.judged(float("nan"), 1.0)["holds"]


def test_eight_minutes_are_shared_as_planned_and_the_rest_is_handed_on():
    names = list(plan.STAGES)
    for coming in plan.following(names):
        left = sum(plan.STAGES[name].part for name in coming)
        assert plan.share(coming, left) == pytest.approx(plan.STAGES[coming[0]].part)
        assert plan.share(coming[:1], 1000.0) == 1000.0


def test_stages_come_in_their_order():
    assert plan.chosen("train,device") == ["device", "train"]
    with pytest.raises(UserError, match="no stage 'tain'; there are: device, tests"):
        plan.chosen("device,tain")


def test_a_time_too_short_for_the_first_stage_is_refused():
    plan.check_time(["tests", "step"], 60.0)
    with pytest.raises(UserError, match=r"--minutes 0.05 .*'device'; give at least 1.5"):
        plan.check_time(list(plan.STAGES), 3.0)


def test_results_are_there_after_each_item_and_a_failed_one_loses_none(tmp_path, capsys):
    path = tmp_path / "step.json"

    def fail():
        assert results.read(path)["items"] == {"first": {"speed": 2.0}}
        raise RuntimeError("no memory")

    results.write(path, {"items": {}}, CPU)
    kept = results.Results(path, CPU, seconds=60.0)
    kept.take({"first": lambda: {"speed": 2.0}, "second": fail, "third": lambda: {}})
    content = json.loads(path.read_text())
    assert list(content["items"]) == ["first", "second", "third"]
    assert content["items"]["second"]["error"] == "RuntimeError: no memory"
    assert content["hardware"]["devices"] == ["cpu"]
    assert "versions" in content
    assert "step first: speed 2\nstep second: FAILED" in capsys.readouterr().out


def test_what_there_was_no_time_for_is_said(tmp_path):
    kept = results.Results(tmp_path / "x.json", CPU, seconds=0.0)
    kept.take({"first": lambda: {"speed": 2.0}})
    assert kept.items == {"first": {"left_out": "no time was left"}}


def test_results_of_two_devices_do_not_share_a_folder(tmp_path):
    results.write(tmp_path / "step.json", {"items": {}}, {**CPU, "kinds": ["NVIDIA H100"]})
    results.check_device(tmp_path, ["device"], CPU)
    with pytest.raises(UserError, match="results of 1 x NVIDIA H100, this is 1 x cpu"):
        results.check_device(tmp_path, ["device", "step"], CPU)
    (tmp_path / "step.json").write_text("{}")
    with pytest.raises(UserError, match=r"step.json holds no results"):
        results.check_device(tmp_path, ["step"], CPU)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=speed"], "no stage 'speed'"),
        (["--minutes=0.01"], "--minutes 0.01 is too short"),
        (["--minutes=0"], "must be above 0, got 0"),
        (["--minutes=soon"], "expected a number"),
        (["--data=nowhere"], "nowhere"),
        (["--pack=5"], "--pack needs a prepared TFDS folder"),
        (["--stages=device", "--peers=nowhere"], "no interpreter nowhere"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        accelerator.main([f"--out={tmp_path / 'out'}", *arguments])
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("out/*"))


def test_a_stage_that_dies_is_recorded_and_the_next_one_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(plan.STAGES, "bad", plan.STAGES["device"])
    paths = dict.fromkeys(("data", "workdir", "peers"), "")
    options = {"out": str(tmp_path), "device": CPU, "seconds": 60.0, "train_minutes": 0.0, **paths}
    assert not accelerator._run_stage("bad", options)
    content = results.read(tmp_path / "bad.json")
    assert content["items"] == {}
    assert "KeyError: 'bad'" in content["not_complete"]
    assert "bad is not complete: exit code 1" in capfd.readouterr().out


def test_a_stage_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    """A stage that would run on, and its child, whose file says that it has started."""
    began = tmp_path / "began"
    code = f"import subprocess; subprocess.run(['sh', '-c', 'echo $$ > {began}; sleep 1000'])"
    process = accelerator.subprocess.Popen([sys.executable, "-c", code], process_group=0)
    while not began.exists() or not began.read_text().strip():
        assert process.poll() is None
        time.sleep(0.05)
    assert accelerator._alive(process.pid)
    accelerator._end(process)
    assert process.poll() is not None
    assert not accelerator._alive(process.pid)


def test_a_command_that_is_asked_to_stop_has_not_failed():
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"]
    assert records.run(sleep, stop_after=0.5).seconds >= 0.5
    with pytest.raises(SystemExit):
        records.run([sys.executable, "-c", "raise SystemExit(3)"], stop_after=600.0)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is here")
def test_a_peer_that_cannot_start_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(networks, "BROKEN", {})
    options = Options(CPU, 60.0, "", "", "", 0.0, peers=sys.executable)
    for _ in range(2):  # the second time without another try
        with ExitStack() as stack:
            peers, said = networks.start_peer(options, networks.job(options, 8), stack, "train")
        assert peers == []
        assert "No module named 'torch'" in said["peer_left_out"]["torch"]


def test_a_chains_time_follows_from_the_last_one():
    items = {"20_calls_b256": {"seconds": {"scan": 1.0, "peer": 3.0}, "calls": 20, "batch": 256}}
    assert sample_speed.expected_seconds({}, 1000) == 0.0
    assert sample_speed.expected_seconds(items, 1000 * 1024) == 4.0 * 200
