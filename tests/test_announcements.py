"""What is said before the first step: what goes on, what was changed, what will be missing."""

import json

import pytest
from own_pictures import own, pictures, script
from tiny import flags, run_inside, settings

from diffusion_jax import build
from diffusion_jax.configuration import with_shorter_warmup
from diffusion_jax.errors import UserError
from diffusion_jax.run.announcements import rate_change, warmup_change
from diffusion_jax.run.memory import check_step_fits

pytestmark = pytest.mark.usefixtures("hurried_compiler")
COSINE = {"optimizer__decay": "cosine", "optimizer__warmup_steps": 0}


@pytest.mark.parametrize(
    ("steps", "given", "taken"),
    [(100, 5000, 10), (100, 100, 10), (5, 9, 0), (100, 99, 99), (100, 0, 0)],
)
def test_a_warmup_as_long_as_the_run_is_cut_to_a_tenth(steps, given, taken):
    config = settings(train__steps=steps, optimizer__warmup_steps=given)
    cut = with_shorter_warmup(config)
    assert cut.optimizer.warmup_steps == taken
    told = warmup_change(given, cut)
    assert told == "" if taken == given else f"the warm-up is cut to {taken} steps" in told
    largest = max(float(build.learning_rate(cut)(step)) for step in range(steps))
    assert largest == pytest.approx(config.optimizer.learning_rate, rel=0.02)
    config.optimizer.shorten_warmup = False
    assert with_shorter_warmup(config).optimizer.warmup_steps == given


def test_a_warmup_that_was_cut_stays_as_it_is_when_the_run_becomes_longer(tmp_path):
    def train(steps, warmup):
        changes = {"train__steps": steps, "optimizer__warmup_steps": warmup}
        return run_inside(script("train", f"--workdir={tmp_path / 'a'}", *flags(**changes)))

    first = train(20, 30)
    assert (first.returncode, first.stderr.count("\n")) == (0, 1)
    assert "optimizer.warmup_steps 30 is not shorter than the run of 20 steps" in first.stderr
    longer = train(40, 30)
    assert (longer.returncode, longer.stderr) == (0, "")
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates[2:] == [rates[2]] * 38
    other = train(40, 10)
    assert (other.returncode, "optimizer.warmup_steps (2 -> 10)" in other.stderr) == (2, True)


def test_a_rate_that_jumps_is_told_and_one_that_does_not_is_not():
    short, long = (settings(train__steps=steps, **COSINE) for steps in (20, 40))
    line = rate_change(short, long, 19)
    assert line.startswith("train.steps 20 -> 40 changes the schedule of the learning rate: ")
    old, new = (float(build.learning_rate(each)(19)) for each in (short, long))
    assert f"after step 19 the rate is {new:.3g} instead of {old:.3g}" in line
    constant = [settings(train__steps=steps) for steps in (20, 40)]
    assert rate_change(*constant, 19) == rate_change(short, short, 19) == ""


def test_the_command_tells_of_both(tmp_path):
    def train(steps):
        changes = {"train__steps": steps, "train__save_every": 0, **COSINE}
        return run_inside(script("train", f"--workdir={tmp_path / 'a'}", *flags(**changes)))

    first = train(2)
    assert (first.returncode, first.stderr) == (0, "")
    again = train(8)
    assert (again.returncode, again.stderr.count("\n")) == (0, 1)
    assert "changes the schedule of the learning rate: after step 2 the rate is" in again.stderr
    rates = [
        json.loads(line)["learning_rate"] for line in (tmp_path / "a" / "metrics.jsonl").open()
    ]
    assert rates[2] > rates[1]


def test_what_goes_on_before_the_first_step(tmp_path):
    data = pictures(tmp_path / "data")
    done = run_inside(script("train", f"--workdir={tmp_path / 'my run'}", *own(data)))
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[1].startswith("devices: ")
    assert "16 images 8x8x3" in lines[1]
    assert lines[0].startswith(
        "the data has no split 'test' to evaluate on; --config.data.holdout="
    )
    assert lines[2] == "reading 16 images and compiling the training step ..."
    assert lines[3].startswith("read in ")
    assert "compiled in " in lines[3]
    assert " MiB of " in lines[3]
    assert lines[-1] == f"next: python sample.py --workdir='{tmp_path}/my run'"


def test_a_step_that_does_not_fit_names_three_ways_out():
    config = settings()
    check_step_fits(config, 2**30, 2**30)
    with pytest.raises(UserError) as caught:
        check_step_fits(config, 3 * 2**30, 2**30)
    assert str(caught.value) == (
        "a training step needs 3.0 GiB per device, 2.0 GiB more than the 1.0 GiB that are free; "
        "raise config.train.accumulate (1) or lower config.train.batch_size (8), or "
        "config.model.channels (8)"
    )


def test_images_that_were_trained_on_are_told(tmp_path):
    run = f"--workdir={tmp_path / 'run'}"
    assert run_inside(script("train", run, *flags(train__steps=1))).returncode == 0
    done = run_inside(script("evaluate", run, "--split=validation", "--num=2", "--every=10"))
    assert done.stderr == (
        "warning: the run was trained on 287 of the images of split 'validation'\n"
    )
    done = run_inside(script("evaluate", run, "--num=2", "--every=10"))
    assert (done.returncode, done.stderr) == (0, "")
