"""Configurations: locked, typed, and the same after a round trip through JSON."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest

from diffusion_jax import build, build_sampling, config
from diffusion_jax.config import files, reference
from diffusion_jax.config.check import check
from diffusion_jax.config.keys import Key, arguments
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError

CONFIGS = sorted(Path(__file__).parent.parent.glob("configs/[a-z]*.py"))
DIGITS = str(Path(__file__).parent.parent / "configs" / "digits.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_survives_json(path):
    loaded = config.load(str(path), [])
    assert loaded.is_locked
    assert config.from_json(config.to_json(loaded)) == loaded


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_the_default_keys(path):
    default = config.load(str(path.with_name("default.py")), [])
    loaded = config.load(str(path), [])
    assert config.flatten(loaded.to_dict()).keys() == config.flatten(default.to_dict()).keys()


def test_the_page_of_keys_is_current():
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert page.read_text() == reference.markdown(), "run `make docs`"


def test_an_argument_with_a_default_is_a_key():
    """Its type is its annotation, its meaning its line in the docstring."""

    def first(steps: int, tilt: float = 0.5, knots: Sequence[int] = (1, 2)):
        """Build it.

        Args:
            steps: given by the caller.
            tilt: how far it
                leans.
            knots: where it bends.
        """

    def second(tilt: float = 0.5):
        """Build another."""

    keys = arguments({"first": first, "second": second})
    assert keys == {
        "tilt": Key(0.5, "how far it leans.", kind=float, users=("first", "second")),
        "knots": Key((1, 2), "where it bends.", kind=tuple[int, ...], users=("first",)),
    }
    with pytest.raises(TypeError, match="'second' does not say what 'tilt' means"):
        arguments({"second": second})
    second.__defaults__ = (0.7,)
    with pytest.raises(TypeError, match="'tilt' of 'second' has another default elsewhere"):
        arguments({"first": first, "second": second})


def test_older_configs_are_translated(monkeypatch):
    """Renamed keys are; a key that was added since gets the value that means "as it was"."""
    new = config.to_json(config.load(DIGITS, []))
    old = copy.deepcopy(new)
    old["train"]["size"] = old["train"].pop("batch_size")
    del old["train"]["accumulate"], old["ema"]
    monkeypatch.setitem(files.RENAMED, "train.size", "train.batch_size")
    monkeypatch.setitem(files.AS_IT_WAS, "ema.decay", 0.5)
    wanted = copy.deepcopy(new)
    wanted["ema"]["decay"] = 0.5
    assert config.modernised(old) == wanted
    assert config.modernised(new) == new


def test_overrides_keep_their_type():
    loaded = config.load(
        DIGITS,
        [
            ("train.steps", "7"),
            ("optimizer.learning_rate", "1"),
            ("data.flip", "true"),
            ("model.multipliers", "1,2,3"),
            ("schedule.betas", "[0.1, 0.2]"),
            ("schedule.log_snr_max", "8"),
            ("name", "5"),
        ],
    )
    assert loaded.train.steps == 7
    assert isinstance(loaded.optimizer.learning_rate, float)
    assert loaded.data.flip is True
    assert loaded.model.multipliers == (1, 2, 3)
    assert loaded.schedule.betas == (0.1, 0.2)
    assert loaded.schedule.log_snr_max == 8.0
    assert loaded.name == "5"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.stpes", "1", r"no config key 'train.stpes'; the nearest is 'train.steps'"),
        ("trian.steps", "1", r"the nearest is 'train.steps'"),
        ("train", "1", r"no config key 'train'"),
        ("train.steps", "many", r"--config.train.steps=many: expected an integer"),
        ("train.steps", "1.5", r"expected an integer"),
        ("optimizer.learning_rate", "fast", r"expected a finite number"),
        ("optimizer.learning_rate", "inf", r"expected a finite number"),
        ("data.flip", "maybe", r"expected true or false"),
        ("model.multipliers", "1,x", r"expected numbers like 1,2,2"),
        ("model.multipliers", "1.5,2", r"expected numbers like 1,2,2"),
    ],
)
def test_bad_overrides_are_one_line(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        config.load(DIGITS, [(key, value)])
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no config file .*nowhere.py"):
        config.load(str(tmp_path / "nowhere.py"), [])
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(UserError, match=r"broken.py failed: ModuleNotFoundError"):
        config.load(str(broken), [])
    broken.write_text("def get_config():\n    return 3\n")
    with pytest.raises(UserError, match="must return a ConfigDict"):
        config.load(str(broken), [])
    with pytest.raises(UserError, match=r"no variant 'nonsense'; there are: conditional, ncsn"):
        config.load(DIGITS + ":nonsense", [])


def test_a_file_with_other_keys_is_refused(tmp_path):
    own = tmp_path / "own.py"
    start = "from configs import default\ndef get_config():\n    config = default.get_config()\n"
    own.write_text(start + "    config.train.stepz = 5\n    return config\n")
    with pytest.raises(UserError, match=r"own.py failed: AttributeError: .*stepz") as caught:
        config.load(str(own), [])
    assert "\n" not in str(caught.value)
    own.write_text(start + "    config.unlock()\n    config.trian = 5\n    return config\n")
    with pytest.raises(UserError, match="unknown key 'trian'"):
        config.load(str(own), [])
    own.write_text(start + "    config.unlock()\n    del config.seed\n    return config\n")
    with pytest.raises(UserError, match="lacks the key 'seed'"):
        config.load(str(own), [])


def test_what_may_change_between_resumes():
    old = config.to_json(config.load(DIGITS, []))
    harmless = [
        ("train.steps", "9"),
        ("data.dir", "/elsewhere"),
        ("parallel", "pmap"),
        ("train.log_every", "3"),
        ("train.sample_every", "0"),
        ("sample.batch_size", "7"),
    ]
    assert config.differences(old, config.to_json(config.load(DIGITS, harmless))) == []
    changed = config.to_json(config.load(DIGITS, [("seed", "1"), ("model.blocks", "3")]))
    assert [line.split()[0] for line in config.differences(old, changed)] == [
        "model.blocks",
        "seed",
    ]


def test_sampling_takes_no_more_steps_than_there_are():
    data = DataSpec((8, 8, 1), 17, 10)
    short = [("schedule.name", "betas"), ("schedule.betas", "0.1,0.2,0.3")]
    for overrides, steps in (([], 250), ([("schedule.steps", "20")], 20), (short, 3)):
        loaded = config.load(DIGITS, overrides)
        assert build_sampling.steps(loaded, build.diffusion(loaded, data)) == steps


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule.name", "linaer", r"config.schedule.name 'linaer'; known: .*linear"),
        ("parallel", "tpu", r"config.parallel 'tpu'; known: fsdp, jit, pmap"),
        ("optimizer.decay", "x", r"known: constant, cosine"),
        ("ema.decay", "1.5", r"config.ema.decay is 1.5; it must be between 0.0 and 1.0"),
        ("prediction", "noise", r"config.prediction 'noise'; known: eps, mean"),
        ("variance", "big", r"known: fixed_large, fixed_small"),
        ("weight", "none", r"known: bound"),
        ("timesteps", "none", r"known: importance, stratified, uniform"),
        ("model.multipliers", "1,2,2,2,2", r"image size 8x8 is not divisible by 16"),
        ("model.multipliers", "0,1", r"model.multipliers is \(0, 1\)"),
        ("model.blocks", "-1", r"model.blocks is -1"),
        ("model.classes", "3", r"config.model.classes is 3, but the data has 10"),
        ("schedule.betas", "0.5,2", None),
    ],
)
def test_build_refuses_what_does_not_fit(key, value, message):
    loaded = config.load(DIGITS, [(key, value)])
    data = DataSpec((8, 8, 1), 17, 10)
    if message is None:  # betas are only read by the schedule of that name
        check(loaded)
        build.diffusion(loaded, data)
        loaded = config.load(DIGITS, [(key, value), ("schedule.name", "betas")])
        message = "config.schedule: betas must be"
    with pytest.raises(UserError, match=message):  # noqa: PT012 (one of the two refuses)
        check(loaded)
        build.diffusion(loaded, data)
