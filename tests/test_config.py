"""Configurations: locked, typed, and the same after a round trip through JSON."""

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest

from diffusion_jax import build
from diffusion_jax.build import sampling
from diffusion_jax.configuration import (
    as_json,
    changed,
    config,
    differences,
    flatten,
    from_json,
    load,
    modernised,
    override,
    reference,
    to_json,
)
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.keys import Key, keys
from diffusion_jax.configuration.tables import TABLES, chosen, chosen_network
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError

CONFIGS = sorted(Path(__file__).parent.parent.glob("configs/[a-z]*.py"))
DIGITS = str(Path(__file__).parent.parent / "configs" / "digits.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_survives_json(path):
    loaded = load(str(path), [])
    assert loaded.is_locked
    assert from_json(to_json(loaded)) == loaded


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_the_default_keys(path):
    default = load(str(path.with_name("default.py")), [])
    loaded = load(str(path), [])
    assert flatten(loaded.to_dict()).keys() == flatten(default.to_dict()).keys()


def test_the_page_of_keys_is_current():
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert page.read_text() == reference.markdown(), "run `make docs`"


def test_every_key_says_what_it_means():
    for name, key in keys().items():
        assert key.meaning, name


def leaning(schedule, steps: int, tilt: float = 0.5, knots: Sequence[int] = (1, 2), other=np.sin):
    """Build it.

    Args:
        steps: given by the caller.
        tilt: how far it
            leans.
        knots: where it bends.
    """
    return schedule.take(range(steps))


def test_an_argument_with_a_default_is_a_key(monkeypatch):
    """Of any table; its type is its annotation, its meaning its line in the docstring."""
    before = keys()
    monkeypatch.setitem(TABLES["sample.grid"], "leaning", leaning)
    assert keys() == before  # unless it is chosen
    after = keys({"sample.grid": "leaning"})
    added = {name: key for name, key in after.items() if name not in before}
    assert added == {
        "sample.tilt": Key(0.5, "how far it leans.", kind=float, users=("leaning",)),
        "sample.knots": Key((1, 2), "where it bends.", kind=tuple[int, ...], users=("leaning",)),
    }
    settings = config("digits", sample={"grid": "leaning", "knots": [3, 4]})
    assert chosen(settings, "sample.grid").keywords == {"tilt": 0.5, "knots": (3, 4)}
    assert from_json(to_json(settings)) == settings
    assert changed(settings, {"sample": {"grid": "uniform"}}) == config("digits")


def test_an_argument_that_is_another_key_is_refused(monkeypatch):
    def other(schedule, steps: int, rho: float = 3.0):
        """Build it."""

    def known(schedule, steps: int, num: int = 64):
        """Build it."""

    for name, function in (("rho", other), ("num", known)):
        with monkeypatch.context() as patch:
            patch.setitem(TABLES["sample.grid"], "mine", function)
            with pytest.raises(UserError, match=f"'mine': config.sample.{name} is another key"):
                keys({"sample.grid": "mine"})


def test_a_function_of_ones_own_leaves_other_configurations_alone(monkeypatch):
    """What was made before it was registered stays valid, and what is made after lacks its keys."""
    before = config("digits")
    monkeypatch.setitem(TABLES["sample.grid"], "leaning", leaning)
    check(before)
    assert changed(before, {}) == before == config("digits")
    assert changed(before, {"sample": {"tilt": 1.0, "grid": "leaning"}}).sample.tilt == 1.0
    loaded = load(DIGITS, [("sample.tilt", "2"), ("sample.grid", "leaning")])
    assert (loaded.sample.tilt, loaded.sample.knots) == (2.0, (1, 2))


def test_bound_functions_and_supplied_arguments(monkeypatch):
    """Entries may be partials, and may have defaults for what the caller supplies."""

    def own(steps: int = 7, levels: int = 3, tilt: float = 0.5):
        """Build it.

        Args:
            tilt: how far.
        """
        return steps, levels, tilt

    monkeypatch.setitem(TABLES["schedule.name"], "own", functools.partial(own, tilt=0.25))
    settings = config("digits", schedule={"name": "own", "steps": 10})
    assert settings.schedule.tilt == 0.25
    assert chosen(settings, "schedule.name", steps=10, levels=17)() == (10, 17, 0.25)


class Field(nn.Module):
    """A network with fields that no configuration can hold."""

    out_channels: int = 3
    classes: int = 0
    width: int = 8
    dropout: float = 0.5
    activation: Callable = nn.relu


class Needy(nn.Module):
    """A network with a field that it is never given."""

    depth: int


def test_fields_of_another_network(monkeypatch):
    monkeypatch.setitem(TABLES["model.name"], "field", Field)
    monkeypatch.setitem(TABLES["model.name"], "needy", Needy)
    labelled = config("digits:conditional", model={"name": "field", "width": 4})
    assert labelled.model.to_dict() == {"name": "field", "classes": 10, "width": 4, "dropout": 0.5}
    assert chosen_network(labelled, out_channels=2).out_channels == 2
    with pytest.raises(UserError, match=r"'needy' cannot be made: .*'depth'; give each .* default"):
        config("digits", model={"name": "needy"})
    monkeypatch.setitem(TABLES["model.name"], "made", Field())
    with pytest.raises(UserError, match=r"\['made'\] is a network; put its class there"):
        config("digits", model={"name": "made"})
    with pytest.raises(UserError, match=r"no config key 'model.channels'; the nearest is 'model"):
        config("digits", model={"name": "field", "channels": 3})
    back = changed(labelled, {"model": {"name": "unet"}})
    assert (back.model.classes, back.model.channels) == (10, 128)


@pytest.mark.parametrize("key", TABLES)
def test_every_table_reads_arguments_by_signature(key, monkeypatch):
    """Each entry is called with the values of its group, and only with those it takes."""
    table, group = TABLES[key], key.rpartition(".")[0]

    def mine(*given, strength_of_mine: float = 0.5):
        """Do it.

        Args:
            strength_of_mine: how much.
        """
        return given, strength_of_mine

    monkeypatch.setitem(table, "mine", mine)
    changes = {key.rpartition(".")[2]: "mine"}
    new = config("default").copy_and_resolve_references()
    new = changed(new, {group: changes} if group else changes)
    override(new, f"{group}.strength_of_mine".removeprefix("."), "2")
    assert chosen(new, key)(7) == ((7,), 2.0)


def test_older_configs_are_translated(monkeypatch):
    """Renamed keys are; a key that was added since gets the value that means "as it was"."""
    new = to_json(load(DIGITS, []))
    old = copy.deepcopy(new)
    old["train"]["size"] = old["train"].pop("batch_size")
    del old["train"]["accumulate"], old["ema"]
    monkeypatch.setitem(as_json.RENAMED, "train.size", "train.batch_size")
    monkeypatch.setitem(as_json.AS_IT_WAS, "ema.decay", 0.5)
    wanted = copy.deepcopy(new)
    wanted["ema"]["decay"] = 0.5
    assert modernised(old) == wanted
    assert modernised(new) == new


def test_overrides_keep_their_type():
    loaded = load(
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
        ("train.lr", "1", r"the nearest is 'optimizer.learning_rate'"),
        ("lr", "1", r"the nearest is 'optimizer.learning_rate'"),
        ("epochs", "1", r"the nearest is 'train.steps'"),
        ("model.num_res_blocks", "1", r"the nearest is 'model.blocks'"),
        ("train", "1", r"config.train is a group of keys; set those in it, such as 'train\."),
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
        load(DIGITS, [(key, value)])
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no config '.*nowhere.py'; give the path .*digits"):
        load(str(tmp_path / "nowhere.py"), [])
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(UserError, match=r"broken.py failed: ModuleNotFoundError"):
        load(str(broken), [])
    broken.write_text("def get_config():\n    return foo\n")
    with pytest.raises(UserError, match=r"broken.py failed: NameError: .* \(line 2\)"):
        load(str(broken), [])
    broken.write_text("def get_config():\n    return 3\n")
    with pytest.raises(UserError, match="must return a ConfigDict"):
        load(str(broken), [])
    with pytest.raises(UserError, match=r"unknown variant 'nonsense'; known: conditional, ncsn"):
        load(DIGITS + ":nonsense", [])


def test_a_file_with_other_keys_is_refused(tmp_path):
    own = tmp_path / "own.py"
    start = "import diffusion_jax as dj\ndef get_config():\n    config = dj.config('default')\n"
    own.write_text(start + "    config.train.stepz = 5\n    return config\n")
    with pytest.raises(UserError, match=r"own.py failed: AttributeError: .*stepz") as caught:
        load(str(own), [])
    assert "\n" not in str(caught.value)
    own.write_text(start + "    config.unlock()\n    config.trian = 5\n    return config\n")
    with pytest.raises(UserError, match="unknown key 'trian'"):
        load(str(own), [])
    own.write_text(start + "    config.unlock()\n    del config.seed\n    return config\n")
    with pytest.raises(UserError, match="lacks the key 'seed'"):
        load(str(own), [])


def test_of_another_network_only_the_name_is_a_difference(monkeypatch):
    monkeypatch.setitem(TABLES["model.name"], "field", Field)
    old, new = (to_json(config("digits", model={"name": name})) for name in ("unet", "field"))
    assert differences(old, new) == ["model.name (unet -> field)"]


def test_what_may_change_between_resumes():
    old = to_json(load(DIGITS, []))
    harmless = [
        ("train.steps", "9"),
        ("data.dir", "/elsewhere"),
        ("parallel", "pmap"),
        ("train.log_every", "3"),
        ("train.sample_every", "0"),
        ("sample.batch_size", "7"),
    ]
    assert differences(old, to_json(load(DIGITS, harmless))) == []
    changed = to_json(load(DIGITS, [("seed", "1"), ("model.blocks", "3")]))
    assert [line.split()[0] for line in differences(old, changed)] == [
        "model.blocks",
        "seed",
    ]


def test_sampling_takes_no_more_steps_than_there_are():
    data = DataSpec((8, 8, 1), 17, 10)
    short = [("schedule.name", "betas"), ("schedule.betas", "0.1,0.2,0.3")]
    for overrides, steps in (([], 250), ([("schedule.steps", "20")], 20), (short, 3)):
        loaded = load(DIGITS, overrides)
        assert sampling.grid_steps(loaded, build.diffusion(loaded, data)) == steps


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
        ("timesteps", "none", r"known: importance, loss_second_moment, stratified, uniform"),
        ("model.multipliers", "1,2,2,2,2", r"image size 8x8 is not divisible by 16"),
        ("model.multipliers", "0,1", r"model.multipliers is \(0, 1\)"),
        ("model.blocks", "-1", r"model.blocks is -1"),
        ("model.classes", "3", r"config.model.classes is 3, but the data has 10"),
        ("schedule.betas", "0.5,2", None),
    ],
)
def test_build_refuses_what_does_not_fit(key, value, message):
    loaded = load(DIGITS, [(key, value)])
    data = DataSpec((8, 8, 1), 17, 10)
    if message is None:  # betas are only read by the schedule of that name
        check(loaded)
        build.diffusion(loaded, data)
        loaded = load(DIGITS, [(key, value), ("schedule.name", "betas")])
        message = "config.schedule: betas must be"
    with pytest.raises(UserError, match=message):  # noqa: PT012 (one of the two refuses)
        check(loaded)
        build.diffusion(loaded, data)
