"""The command line: what a person types, and the one line that answers bad input."""

import json
import os
import signal
import subprocess

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, Tiny, run_inside, sample, train

from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.configuration import flatten


def run(command, **options):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run(train(folder))
    assert done.returncode == 0, done.stderr
    assert "parameters:" in done.stdout.splitlines()[0]
    assert "devices: 4 x" in done.stdout.splitlines()[0]
    return folder


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def restored(folder, step):
    """Parameters, optimiser and average of a checkpoint."""
    return Checkpoints(folder / "checkpoints", {}).restore(step, Tiny().state())


def test_a_run_leaves_what_it_promises(workdir):
    record = json.loads((workdir / "config.json").read_text())
    assert record["config"]["train"]["steps"] == 6
    assert record["data"] == {"shape": [8, 8, 1], "levels": 17, "classes": 10, "class_names": []}
    assert record["sessions"][0]["versions"]["jax"]
    assert "schedule.log_snr_min" in flatten(record["config"])
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "6"]
    assert list((workdir / "tensorboard").iterdir())
    lines = metrics(workdir)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    wanted = {"step", "loss", "grad_norm", "learning_rate", "skipped", "images_per_second"}
    assert all(wanted <= line.keys() for line in lines)


def test_a_finished_run_says_so(workdir):
    done = run_inside(train(workdir))
    assert done.returncode == 0
    assert "is finished: 6 steps are done" in done.stdout


def test_another_config_on_the_same_folder_is_refused(workdir):
    done = run_inside(train(workdir, seed=1, model__blocks=2))
    assert done.returncode == 2
    assert "model.blocks (1 -> 2), seed (0 -> 1)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_sampling_needs_the_folder_alone(workdir, tmp_path):
    """From another place, as a grid, an archive and a folder: the same pictures."""
    for out in ("grid.png", "images.npz", "folder"):
        command = sample(workdir, "--num=6", "--seed=3", f"--out={tmp_path / out}")
        done = run(command)
        assert done.returncode == 0, done.stderr
    images = np.load(tmp_path / "images.npz")["arr_0"]
    assert images.shape == (6, 8, 8, 1)
    assert images.dtype == np.uint8
    files = sorted((tmp_path / "folder").glob("*.png"))
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(6)]
    read = np.stack([np.asarray(Image.open(path)) for path in files])
    np.testing.assert_array_equal(read, images[..., 0])
    assert min(Image.open(tmp_path / "grid.png").size) > 64


def test_an_image_depends_on_seed_and_index_alone(workdir, tmp_path):
    drawn = {}
    for num in (4, 7):
        run(sample(workdir, f"--num={num}", f"--out={tmp_path / 'x.npz'}"))
        drawn[num] = np.load(tmp_path / "x.npz")["arr_0"].astype(int)
    assert np.abs(drawn[4] - drawn[7][:4]).max() <= 1
    one_device = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    run(sample(workdir, "--num=4", f"--out={tmp_path / 'x.npz'}"), env=one_device)
    alone = np.load(tmp_path / "x.npz")["arr_0"].astype(int)
    assert np.abs(drawn[4] - alone).max() <= 1


def test_fewer_steps_and_the_strip(workdir, tmp_path):
    strip = tmp_path / "strip.png"
    done = run(
        sample(workdir, "--num=2", "--steps=5", f"--strip={strip}", f"--out={tmp_path / 'x.png'}")
    )
    assert done.returncode == 0, done.stderr
    assert "in 5 steps" in done.stdout
    width, height = Image.open(strip).size
    assert width > 2 * height  # five predictions in a row, two rows


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_saved_and_goes_on_bit_for_bit(workdir, tmp_path, number):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        train(folder, train__steps=5000, train__save_every=0),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1].startswith(f"stopped by {number.name} after step")
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert f"after step {step} (saved)" in errors
    # A run that was never stopped reaches the same numbers.
    end = step + 3
    assert run(train(folder, train__steps=end, train__save_every=0)).returncode == 0
    straight = tmp_path / "straight"
    assert run(train(straight, train__steps=end, train__save_every=0)).returncode == 0
    for ours, theirs in zip(metrics(folder), metrics(straight), strict=True):
        assert ours | {"images_per_second": 0} == theirs | {"images_per_second": 0}
    jax.tree.map(np.testing.assert_array_equal, restored(folder, end), restored(straight, end))


def test_divergence_ends_with_its_own_code(tmp_path):
    folder = tmp_path / "diverged"
    changes = {"optimizer__learning_rate": 1e30, "optimizer__warmup_steps": 0}
    done = run(train(folder, **changes, train__max_skipped=3, train__save_every=1))
    assert done.returncode == 3
    assert "training diverged at step 4: 3 updates in a row were not finite" in done.stderr
    assert "the last checkpoint is of step 1;" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    batch = json.loads((folder / "diverged_0000004.json").read_text())
    assert (batch["step"], len(batch["t"]), len(batch["loss"])) == (4, 8, 8)
    assert None in batch["loss"]
    assert [line["skipped"] for line in metrics(folder)] == [0, 1, 2]


def test_without_config_the_digits_are_trained(tmp_path):
    command = [train(tmp_path)[0], str(ROOT / "train.py"), f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert "no --config given: training the config 'digits'" in process.stdout.readline()
    process.kill()
    process.communicate()


BAD = {
    "misspelt key": (train("W", train__stpes=3), "the nearest is 'train.steps'"),
    "wrong type": (train("W", train__steps="x"), "expected an integer"),
    "no config file": (
        [*train("W")[:2], "--config=no.py"],
        "no config 'no.py'; give the path of a Python file, or one of: celeba64",
    ),
    "unknown data set": (train("W", data__name="digitz"), "unknown data set 'digitz'; known: "),
    "unknown schedule": (train("W", schedule__name="x"), "config.schedule.name 'x'; known: "),
    "unknown prediction": (train("W", prediction="x"), "config.prediction 'x'; known: "),
    "batch": (train("W", train__batch_size=6), "6 is not divisible by the 4 devices"),
    "image size": (train("W", model__multipliers="1,1,1,1,1"), "8x8 is not divisible by 16"),
    "unknown flag": ([*train("W"), "--wrkdir=3"], "unrecognized arguments: --wrkdir=3"),
    "value missing": ([*train("W"), "--config.seed"], "--config.seed has no value"),
    "no image folder": (
        train("W", data__name="image_folder", data__dir="/nowhere", data__channels=0),
        "/nowhere",
    ),
    "batch of nothing": (train("W", train__batch_size=0), "it must be between 1 and 1000000"),
    "negative seed": (train("W", seed=-1), "config.seed is -1; it must be between 0 and"),
    "odd channels": (train("W", model__channels=7), "model.channels"),
    "no folder of images": (train("W", data__name="image_folder"), "set --config.data.dir"),
    "empty workdir": (sample("", "--num=1"), "argument --workdir: a path is empty"),
    "num abc": (sample("W", "--num=abc"), "argument --num: expected an integer, got 'abc'"),
    "num 0": (sample("W", "--num=0"), "argument --num: must be at least 1, got 0"),
    "no run": (sample("/nowhere"), "no run in /nowhere"),
}


# What is refused first and what is refused last; the others need no process of their own.
PROCESSES = ("unknown flag", "batch", "no run")


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    command, message = BAD[case]
    command = [part.replace("--workdir=W", f"--workdir={tmp_path / 'run'}") for part in command]
    done = (run if case in PROCESSES else run_inside)(command)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_sampling_without_a_checkpoint(workdir, tmp_path):
    (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
    done = run_inside(sample(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"no checkpoint in {tmp_path}" in done.stderr
    done = run_inside(sample(workdir, "--checkpoint=5"))
    assert "no checkpoint of step 5" in done.stderr
    assert "there are: 3, 6" in done.stderr


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"config": {}}', '{"config": [], "data": {}, "sessions": []}']
)
def test_a_damaged_config_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    done = run_inside(sample(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "config.json is damaged" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "config.json has format 99, but this version of diffusion_jax knows only"),
        ({"config": {"train": {"later": 1}}}, "the run's config has the key 'train.later', which"),
    ],
)
def test_a_run_of_a_newer_version_is_named(workdir, tmp_path, change, message):
    record = json.loads((workdir / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(record))
    done = run_inside(sample(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert message in done.stderr


def test_an_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_inside(train(tmp_path / "file" / "run"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "cannot write the workdir" in done.stderr


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    command = train(
        tmp_path / "run", data__name="image_folder", data__dir=tmp_path, data__image_size=8
    )
    done = run_inside(command)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "bad.png" in done.stderr


def test_other_data_in_the_same_run_is_refused(tmp_path):
    """`data.dir` may change between resumes, the kind of images may not."""
    for size in (8, 16):
        (tmp_path / str(size)).mkdir()
        pixels = np.zeros((8, size, size, 1), np.uint8)
        np.savez(tmp_path / str(size) / "train.npz", images=pixels)
    changes = {"data__name": "arrays", "train__steps": 1, "model__attention_resolutions": 99}
    done = run_inside(train(tmp_path / "run", data__dir=tmp_path / "8", **changes))
    assert done.returncode == 0, done.stderr
    done = run_inside(train(tmp_path / "run", data__dir=tmp_path / "16", **changes))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the data's shape ((8, 8, 1) -> (16, 16, 1))" in done.stderr


OUTS = ["--out={}/x.jpg", "--out={}/file/x.png", "--out={}/full", "--out=", "--strip={}/x.jpg"]


@pytest.mark.parametrize("out", [*OUTS, "--strip={}/full"])
def test_an_impossible_out_is_refused_before_sampling(workdir, tmp_path, out):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.png").write_text("")
    done = run_inside(sample(workdir, "--num=1", out.format(tmp_path)))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "images in" not in done.stdout
