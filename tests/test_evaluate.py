"""`evaluate.py`: what a person types, what the report holds, what answers bad input."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, flags

from diffusion_jax.commands import evaluate, train
from diffusion_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run, with everything learned that can be."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    more = {"variance": "learned_range", "loss": "bound", "timesteps": "importance"}
    train.main([f"--workdir={folder}", *flags(sample__clip=False, model__dropout=0.0, **more)])
    return folder


def run(workdir, tmp_path, *arguments, name="x"):
    out = tmp_path / f"{name}.json"
    evaluate.main([f"--workdir={workdir}", f"--out={out}", *arguments])
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def whole(workdir, tmp_path_factory):
    """The test split with everything that can be asked for."""
    folder = tmp_path_factory.mktemp("reports")
    arguments = ["--num=120", "--trajectory", "--ode=10", "--batch_size=120"]
    return run(workdir, folder, *arguments, name="whole"), folder


def test_the_report_adds_up(whole):
    report, _ = whole
    means = {name: part["mean"] for name, part in report["bits_per_dim"].items()}
    assert set(means) == {"total", "prior", "diffusion", "reconstruction"}
    parts = means["prior"] + means["diffusion"] + means["reconstruction"]
    np.testing.assert_allclose(means["total"], parts)
    assert all(part["stderr"] > 0.0 for part in report["bits_per_dim"].values())
    rows = report["per_timestep"]
    assert [row["t"] for row in rows] == list(range(20))
    np.testing.assert_allclose(
        sum(row["bits_per_dim"] for row in rows[1:]), means["diffusion"], rtol=1e-6
    )
    np.testing.assert_allclose(rows[0]["bits_per_dim"], means["reconstruction"], rtol=1e-6)
    np.testing.assert_allclose(rows[-1]["rate"], means["prior"], rtol=1e-6)
    assert np.all(np.diff([row["rate"] for row in rows]) < 0.0)
    np.testing.assert_allclose(
        [row["distortion"] for row in rows], [127.5 * row["x0_mse"] ** 0.5 for row in rows]
    )


def test_the_report_says_what_it_depends_on(whole):
    settings = whole[0]["settings"]
    expected = {"images": 120, "images_in_split": 360, "split": "test", "every": 1, "seed": 0}
    expected |= {"ema": True, "checkpoint": 6, "clip": False, "levels": 17, "steps": 20}
    assert {key: settings[key] for key in expected} == expected
    assert "CDF" in settings["cdf"]


def test_trajectories_and_the_ode_stand_beside_the_bound(whole):
    report, _ = whole
    check = report["trajectory"]["total_minus_this"]
    assert abs(check["mean"]) < 4.0 * check["stderr"]
    ode = report["ode"]
    assert ode["probes"] == 4
    assert ode["stderr_of_probes"] > 0.0
    assert np.isfinite(ode["mean"])
    assert 0.0 < abs(ode["discretisation_error"]) < 1.0
    # Like with like: the bound of the same dequantised data, with a continuous decoder.
    assert ode["bound"]["total"]["stderr"] > 0.0
    assert ode["bound"]["total"]["mean"] != report["bits_per_dim"]["total"]["mean"]


def test_the_summary_tells_the_odes_error(whole):
    report, _ = whole
    last = evaluate._summary("test", report).splitlines()[-1]
    assert last == (
        f"ODE with --ode=10: {report['ode']['mean']:.4f} bits/dim, of which about "
        f"{report['ode']['discretisation_error']:+.4f} is the error of so few steps"
    )
    report = {**report, "ode": {**report["ode"], "steps": 1, "discretisation_error": None}}
    assert evaluate._summary("test", report).endswith(" bits/dim")


def test_pictures_lie_beside_the_report(whole):
    _, folder = whole
    for name in ("bits_per_t", "cumulative", "rate_distortion", "progressive"):
        picture = Image.open(folder / f"whole_{name}.png")
        assert min(picture.size) > 100
        assert np.asarray(picture.convert("L")).std() > 5.0
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", *[".png"] * 4]


def test_by_default_the_report_is_in_the_runs_folder(workdir, capsys):
    evaluate.main([f"--workdir={workdir}", "--num=3"])
    report = json.loads((workdir / "evaluation" / "test_step6_num3.json").read_text())
    said = capsys.readouterr().out
    assert f"{report['bits_per_dim']['total']['mean']:.4f} +- " in said
    assert "bits/dim over 3 images" in said


def test_batches_change_nothing(workdir, whole, tmp_path):
    part = run(workdir, tmp_path, "--num=30", "--batch_size=8")
    again = run(workdir, tmp_path, "--num=30", "--batch_size=30")
    ours, theirs = (each["bits_per_dim"]["total"]["mean"] for each in (part, again))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_every_k_estimates_the_same(workdir, whole, tmp_path):
    part = run(workdir, tmp_path, "--num=120", "--every=3", "--seed=1")
    assert [row["steps"] for row in part["per_timestep"]] == [1, 3, 3, 3, 3, 3, 3, 1]
    exact, estimate = whole[0]["bits_per_dim"]["total"], part["bits_per_dim"]["total"]
    error = np.hypot(exact["stderr"], estimate["stderr"])
    assert abs(exact["mean"] - estimate["mean"]) < 4.0 * error


def test_raw_parameters_and_older_checkpoints(workdir, whole, tmp_path):
    averaged = run(workdir, tmp_path, "--num=8")
    raw = run(workdir, tmp_path, "--num=8", "--raw", "--checkpoint=3")
    assert not raw["settings"]["ema"]
    assert raw["settings"]["checkpoint"] == 3
    assert raw["bits_per_dim"]["total"] != averaged["bits_per_dim"]["total"]


def test_a_killed_evaluation_goes_on_where_it_was(workdir, tmp_path):
    arguments = [f"--workdir={workdir}", "--num=48", "--batch_size=4"]
    out = tmp_path / "stopped.json"
    command = [sys.executable, str(ROOT / "evaluate.py"), *arguments, f"--out={out}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "evaluated 25%" in line:
            process.kill()
            break
    process.communicate()
    assert not out.exists()
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stopped.*.parts/*.npz")}
    assert saved
    kept = {}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "evaluated" in line and not kept:
            kept = {path: path.stat().st_mtime_ns for path in saved if path.exists()}
    assert process.wait() == 0
    assert kept == saved
    assert not list(tmp_path.glob("stopped.*.parts"))
    straight = run(workdir, tmp_path, "--num=48", "--batch_size=4", name="straight")
    # One process has one device of its own, the other four: equal but for rounding.
    assert json.loads(out.read_text())["per_timestep"] == straight["per_timestep"]


BAD = {
    "split": (["--split=tset"], "'digits' has no split 'tset'; it has: train, test"),
    "num": (["--num=361"], "--num 361: split 'test' has only 360 images"),
    "every": (["--every=20"], "--every 20: must be below the run's 20 steps"),
    "out": (["--out={}/x.txt"], "expected a name ending in .json"),
    "unwritable": (["--out={}/file/x.json"], "cannot write"),
    "key of the run": (["--config.prediction=v"], "may change only data.dir, variance"),
    "learned variance": (
        ["--config.variance=fixed_large"],
        "cannot change to or from a learned variance",
    ),
    "the other one": (
        ["--config.variance=learned_diagonal"],
        "cannot change to or from a learned variance",
    ),
    "a folder": (["--out={}/folder.json"], "expected a name ending in .json"),
    "checkpoint": (["--checkpoint=5"], "no checkpoint of step 5"),
    "ode": (["--ode=0"], "--ode: must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_is_computed(case, workdir, tmp_path, capsys):
    arguments, message = BAD[case]
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    before = set(workdir.rglob("*"))
    with pytest.raises(UserError, match=r".") as error:
        evaluate.main([f"--workdir={workdir}", *(each.format(tmp_path) for each in arguments)])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "images of" not in capsys.readouterr().out
    assert set(workdir.rglob("*")) == before


def copied(workdir, folder, **changes):
    """The same run elsewhere, its config.json changed."""
    shutil.copytree(workdir, folder)
    record = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        record[key] = {**record[key], **value}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_a_changed_schedule_is_refused_in_one_line(workdir, tmp_path):
    schedule = json.loads((workdir / "config.json").read_text())["config"]["schedule"]
    changed = {"schedule": {**schedule, "log_snr_min": -8.0}}
    folder = copied(workdir, tmp_path / "run", config=changed)
    command = [sys.executable, str(ROOT / "evaluate.py"), f"--workdir={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "was trained with the schedule of 20 steps with log-SNR 7.7" in done.stderr
    assert "config.json now says" in done.stderr


def test_data_that_do_not_fit_the_decoder_are_refused(workdir, tmp_path):
    changed = json.loads((workdir / "config.json").read_text())["config"]["data"]
    changed = {"data": {**changed, "name": "arrays", "dir": str(tmp_path / "data.npz")}}
    folder = copied(workdir, tmp_path / "run", config=changed)

    def refused():
        with pytest.raises(UserError) as error:
            evaluate.main([f"--workdir={folder}", "--split=train"])
        return str(error.value)

    np.savez(tmp_path / "data.npz", images=np.zeros((3, 8, 8, 1), np.uint8))
    assert "split 'train' has levels 256, but the run's data had 17" in refused()
    images = np.zeros((3, 8, 8, 1), np.float32)
    images[1, 2, 3, 0] = np.nan
    np.savez(tmp_path / "data.npz", images=images)
    assert "images are not finite, first at index [1, 2, 3, 0]" in refused()
