"""A run outlives the code that made it: runs of older versions sample, evaluate and resume.

`data/run_VERSION` holds a tiny run of each (`tiny.flags(train__steps=3)`), without events and lock.
"""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, flags, run_inside, sample

from diffusion_jax import configuration
from diffusion_jax.configuration import as_json
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.keys import DECLARED, Key, keys
from diffusion_jax.run import record as run_record

DATA = Path(__file__).parent / "data"
RUNS = sorted(DATA.glob("run_*"))
BITS = {"run_0.1.0": 5.09644482}  # of 4 test images, as the version that wrote it said

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def old_run(request, tmp_path):
    """A copy, as it was written."""
    to = tmp_path / request.param.name
    for path in request.param.rglob("*"):
        if path.is_file():
            copy = to / path.relative_to(request.param)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return to


def test_an_old_run_samples_and_evaluates(old_run, tmp_path):
    done = run_inside(sample(old_run, "--num=2", f"--out={tmp_path / 'x.npz'}"))
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x.npz")["arr_0"].shape == (2, 8, 8, 1)
    command = [sys.executable, str(ROOT / "evaluate.py"), f"--workdir={old_run}", "--num=4"]
    done = run_inside([*command, f"--out={tmp_path / 'report.json'}"])
    assert done.returncode == 0, done.stderr
    total = json.loads((tmp_path / "report.json").read_text())["bits_per_dim"]["total"]["mean"]
    assert total == pytest.approx(BITS[old_run.name], rel=1e-4)


def test_an_old_run_resumes(old_run):
    command = [sys.executable, str(ROOT / "train.py"), f"--workdir={old_run}"]
    done = run_inside(
        [*command, *flags(optimizer__warmup_steps=2, train__steps=5, train__save_every=3)]
    )
    assert done.returncode == 0, done.stderr
    assert "after step 3" in done.stdout
    assert (old_run / "checkpoints" / "5").is_dir()
    steps = [json.loads(line)["step"] for line in (old_run / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5]
    data = json.loads((old_run / "config.json").read_text())["config"]["data"]
    assert (data["exif"], data["background"]) == (False, "")  # as images were read then
    done = run_inside(
        [*command, *flags(optimizer__warmup_steps=2, train__steps=6, train__save_every=3)]
    )
    assert (done.returncode, "after step 5" in done.stdout) == (0, True), done.stderr
    done = run_inside(
        [*command, *flags(optimizer__warmup_steps=2, train__steps=7, data__background="black")]
    )
    assert done.returncode == 2
    assert "data.background ( -> black)" in done.stderr


def test_what_an_old_run_lacks_means_as_it_was(old_run, monkeypatch):
    record = json.loads((old_run / "config.json").read_text())["config"]
    settings = run_record.read(old_run).config
    check(settings)
    values = configuration.flatten(settings.to_dict())
    for name in values.keys() - configuration.flatten(record).keys():
        assert values[name] == as_json.AS_IT_WAS.get(name, keys()[name].default)
    # A stopped evaluation is found again after keys were added.
    identity = configuration.deviations(settings)
    monkeypatch.setitem(DECLARED, "train.new", Key(7, "a key of a later version"))
    again = run_record.read(old_run).config
    assert again.train.new == 7
    assert configuration.deviations(again) == identity


def test_a_folder_of_samples_that_an_old_version_began_is_continued(tmp_path):
    """`data/samples_0.1.0` is one, `sample.py --num=1 --steps=5`; newer keys do not matter."""
    folder, run = tmp_path / "samples", DATA / "run_0.1.0"
    shutil.copytree(DATA / "samples_0.1.0", folder)
    first = (folder / "000000.png").read_bytes()
    done = run_inside(sample(run, "--num=2", "--steps=5", f"--out={folder}/"))
    assert done.returncode == 0, done.stderr
    assert "1 image by ancestral" in done.stdout
    assert (folder / "000001.png").is_file()
    assert (folder / "000000.png").read_bytes() == first
    (folder / "000000.png").unlink()
    run_inside(sample(run, "--num=2", "--steps=5", f"--out={folder}/"))
    both = io.BytesIO(first), folder / "000000.png"
    before, again = (np.asarray(Image.open(file), int) for file in both)
    np.testing.assert_allclose(again, before, atol=1)
    done = run_inside(sample(run, "--num=2", "--steps=6", f"--out={folder}/"))
    assert (done.returncode, "(steps differ)" in done.stderr) == (2, True)
