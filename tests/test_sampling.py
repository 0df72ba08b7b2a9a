"""`sample.py` in full: methods, steering, pictures, and folders that survive a kill."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, flags, sample

from diffusion_jax.commands import sample as command
from diffusion_jax.commands import train as training
from diffusion_jax.errors import UserError
from diffusion_jax.samplers.sample import SAMPLERS

pytestmark = pytest.mark.usefixtures("hurried_compiler")


def tiny_run(folder, **changes):
    plain = {"train__steps": 2, "train__save_every": 0, "model__dropout": 0.0}
    training.main([f"--workdir={folder}", *flags(**{**plain, **changes})])
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run without classes."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A finished tiny run with classes that were left out at times."""
    folder = tmp_path_factory.mktemp("runs") / "classes"
    changes = {"model__classes": 10, "train__label_dropout": 0.5}
    return tiny_run(folder, train__steps=20, train__log_every=20, **changes)


def draw(workdir, *arguments):
    command.main([f"--workdir={workdir}", *map(str, arguments)])


def arrays(workdir, tmp_path, *arguments):
    out = tmp_path / "x.npz"
    draw(workdir, f"--out={out}", *arguments)
    return np.load(out)["arr_0"].astype(int)


def picture(path, value, mode="L", size=(8, 8)):
    Image.new(mode, size, value).save(path)
    return path


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_method_draws(name, workdir, tmp_path, capsys):
    images = arrays(workdir, tmp_path, "--num=2", "--steps=3", f"--sampler={name}", "--grid=karras")
    assert images.shape == (2, 8, 8, 1)
    assert np.any(images[0] != images[1])
    assert f"images by {name} in 3 steps" in capsys.readouterr().out


def test_classes_have_rows_and_can_be_asked_for(classes, tmp_path):
    draw(classes, "--num=20", "--steps=2", f"--out={tmp_path / 'x.png'}")
    width, height = Image.open(tmp_path / "x.png").size
    assert height > 4 * width  # ten rows of two
    chosen = [
        arrays(classes, tmp_path, "--num=13", "--steps=2", *more)
        for more in ([], ["--class=2"], ["--class=2", "--guidance=3"])
    ]
    np.testing.assert_array_equal(chosen[0][[2, 12]], chosen[1][[2, 12]])  # i mod 10
    assert np.any(chosen[0][3] != chosen[1][3])
    assert np.any(chosen[1] != chosen[2])


def test_guidance_outside_of_its_interval_is_none(classes, tmp_path):
    plain = arrays(classes, tmp_path, "--num=2", "--steps=2")
    late = "--config.sample.guidance_interval=0.5,0.6"
    guided = arrays(classes, tmp_path, "--num=2", "--steps=2", "--guidance=3", late)
    assert np.abs(plain - guided).max() <= 1


def test_inpainting_keeps_what_is_not_masked(workdir, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    white = np.zeros((8, 8), np.uint8)
    white[:, 4:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    given = [f"--inpaint={tmp_path / 'image.png'}", f"--mask={tmp_path / 'mask.png'}"]
    images = arrays(workdir, tmp_path, "--num=3", "--steps=4", *given)[..., 0]
    assert np.abs(images[:, :, :4] - pixels[:, :4]).max() <= 1
    assert np.any(images[0, :, 4:] != images[1, :, 4:])


def test_a_start_from_an_image_stays_near_it_at_low_strength(workdir, tmp_path):
    source = picture(tmp_path / "image.png", 200)
    far, near = (
        arrays(workdir, tmp_path, "--num=2", f"--from={source}", f"--strength={strength}")
        for strength in (1.0, 0.1)
    )
    assert np.abs(near - 200).mean() < 0.5 * np.abs(far - 200).mean()


def test_the_way_from_noise_to_image_can_be_seen(workdir, tmp_path):
    film, strip, way = (tmp_path / name for name in ("x.gif", "strip.png", "way.png"))
    common = ["--num=3", "--steps=5", f"--out={tmp_path / 'x.png'}"]
    draw(workdir, *common, f"--trajectory={film}", f"--strip={strip}")
    draw(workdir, *common, f"--trajectory={way}")
    with Image.open(film) as frames:
        assert frames.n_frames == 6  # noise and five steps
    widths = [Image.open(path).size[0] for path in (strip, way)]
    assert widths[0] < widths[1] < 1.5 * widths[0]  # five columns, six columns
    single = tmp_path / "single.png"
    draw(workdir, *common, f"--trajectory={single}", "--config.sample.batch_size=1")
    ours, theirs = (np.asarray(Image.open(path)).astype(int) for path in (single, way))
    assert np.abs(ours - theirs).max() <= 1  # the same rows, from three batches


def test_a_killed_folder_goes_on_without_a_duplicate(workdir, tmp_path, capsys):
    more = ["--num=40", "--steps=20", "--config.sample.batch_size=4"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    draw(workdir, *more, f"--out={whole}/")
    process = subprocess.Popen(
        sample(workdir, *more, f"--out={cut}/"), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not (cut / "000007.png").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in cut.glob("*.png")}
    assert 8 <= len(there) < 40
    draw(workdir, *more, f"--out={cut}/")
    names = sorted(path.name for path in cut.glob("*.png"))
    assert names == [f"{i:06d}.png" for i in range(40)]
    assert all((cut / name).stat().st_mtime_ns == there[name] for name in there)
    for name in names:
        ours, theirs = (np.asarray(Image.open(each / name)).astype(int) for each in (cut, whole))
        assert np.abs(ours - theirs).max() <= 1
    assert not list(cut.glob("*.part"))
    capsys.readouterr()
    draw(workdir, *more, f"--out={cut}/")
    assert capsys.readouterr().out == f"{cut} already has the first 40 images; nothing to do\n"


def test_a_folder_of_other_samples_is_refused(workdir, tmp_path):
    draw(workdir, "--num=2", "--steps=2", f"--out={tmp_path / 'x'}/")
    for change in ("--seed=1", "--steps=3", "--sampler=ddim"):
        with pytest.raises(UserError, match="holds images of another source or with other"):
            draw(workdir, "--num=2", "--steps=2", f"--out={tmp_path / 'x'}/", change)
    film = tmp_path / "late.gif"
    draw(workdir, "--num=2", "--steps=2", f"--out={tmp_path / 'x'}/", f"--trajectory={film}")
    assert film.exists()  # also where every image is there already
    (tmp_path / "x" / "samples.json").write_text("{")
    with pytest.raises(UserError, match=r"samples\.json is damaged"):
        draw(workdir, "--num=2", "--steps=2", f"--out={tmp_path / 'x'}/")


BAD = {
    "--sampler=nonsense": "unknown config.sample.sampler 'nonsense'; known: ancestral, ddim",
    "--grid=nonsense": "unknown config.sample.grid 'nonsense'; known: karras, log_snr",
    "--steps=21": "--steps 21: the run has only 20 steps",
    "--steps=0": "must be at least 1",
    "--sampler=ddim --eta=1.5": "config.sample.eta must lie between 0 and 1, got 1.5",
    "--eta=x": "--config.sample.eta=x: expected a finite number",
    "--eta=0.5": "config.sample.eta has no effect here; it is for 'ddim'",
    "--class=3": "no classes (config.model.classes is 0); train one with classes, for example",
    "--class=cat": "class cat: the run has no class names; give a number",
    "--out={0}/x.tif": "expected a name ending in .png or .npz; for a folder of this name, give",
    "--out={0}/run.v2": "for a folder of this name, give --out=",
    "--guidance=2": "guidance needs a run trained on classes",
    "--strength=0": "must be above 0 and at most 1",
    "--strength=0.5": "--strength is the noise added to --from: give both",
    "--mask={0}/mask.png": "--inpaint and --mask belong together",
    "--inpaint={0}/small.png --mask={0}/mask.png": "is 4 pixels wide and 8 high; the run's images",
    "--inpaint={0}/image.png --mask={0}/white.png": "white.png selects everything; make",
    "--inpaint={0}/image.png --mask={0}/small.png": "is 4 pixels wide and 8 high; the run's images",
    "--from={0}/small.png": "the run's images are 8 wide and 8 high",
    "--from={0}/no.png": "no.png: there is no such file",
    "--from={0}/text.png": "cannot read the picture",
    "--from={0}/image.png --strength=0.01 --steps=2 --grid=karras": None,
    "--from={0}/deep.png": "its pixels have more than 8 bits",
    "--trajectory={0}/x.jpg": "expected a name ending in .png or .gif, used by no other flag",
    "--trajectory={0}/x.png": "expected a name ending in .png or .gif, used by no other flag",
    "--strip={0}/a.png --trajectory={0}/a.png": ".png, used by no other flag",
    "--config.data.dir=x": "sampling may change only config.sample",
    "--config.sample.jmp=3": "no config key 'sample.jmp'; the nearest is 'sample.jump'",
    "--config.sample.guidance_interval=3,1": "must be two ascending numbers, 0..1",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_named(arguments, workdir, tmp_path):
    picture(tmp_path / "image.png", 100)
    half = np.repeat(np.array([0, 255], np.uint8), 4)[:, None].repeat(8, 1)
    Image.fromarray(half).save(tmp_path / "mask.png")
    picture(tmp_path / "white.png", 255)
    picture(tmp_path / "small.png", 100, size=(4, 8))
    (tmp_path / "text.png").write_text("no picture")
    picture(tmp_path / "deep.png", 100, mode="I;16")
    given = arguments.format(tmp_path).split()
    if BAD[arguments] is None:
        draw(workdir, "--num=1", *given, f"--out={tmp_path / 'x.png'}")
        return
    with pytest.raises(UserError) as caught:
        draw(workdir, "--num=1", f"--out={tmp_path / 'x.png'}", *given)
    assert BAD[arguments] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_failed_leaves_no_claim_on_a_folder(workdir, tmp_path):
    with pytest.raises(UserError, match="ending in"):
        draw(workdir, "--num=1", f"--out={tmp_path / 'f'}/", f"--trajectory={tmp_path / 'x.jpg'}")
    draw(workdir, "--num=1", "--seed=1", "--steps=2", f"--out={tmp_path / 'f'}/")


@pytest.mark.parametrize("label", [-1, 10])
def test_a_class_outside_the_range_is_named(label, classes):
    with pytest.raises(UserError, match=rf"class {label}: the run has classes 0\.\.9"):
        draw(classes, "--num=1", f"--class={label}")


def test_label_dropout_needs_classes(tmp_path):
    with pytest.raises(UserError, match="label_dropout needs classes"):
        tiny_run(tmp_path / "run", train__label_dropout=0.5)


def test_ncsn_trains_and_samples(tmp_path):
    run = tmp_path / "run"
    changes = flags(train__steps=2, schedule__steps=4, sample__langevin_steps=3, model__dropout=0.0)
    changes[0] += ":ncsn"
    training.main([f"--workdir={run}", *changes])
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["schedule"]["name"], config["prediction"]) == ("variance_exploding", "score")
    images = arrays(run, tmp_path, "--num=2")
    assert images.shape == (2, 8, 8, 1)
