"""What there is to choose from, and what a run would take, before anything is written."""

import subprocess
import sys
from unittest import mock

import jax
import pytest
from tiny import ROOT, flags, run_inside, settings, train

from diffusion_jax import __main__ as program
from diffusion_jax.commands.listing import everything
from diffusion_jax.configuration import shipped
from diffusion_jax.configuration.tables import TABLES
from diffusion_jax.errors import UserError
from diffusion_jax.run import dry_run

pytestmark = pytest.mark.usefixtures("hurried_compiler")


def test_the_list_has_every_config_and_every_entry_with_its_line():
    lines = [line.split(maxsplit=1) for line in everything().splitlines() if line.startswith("  ")]
    names = [line[0] for line in lines]
    assert {*shipped(), "digits", "image_folder", "arrays"} <= {*names}
    for table in TABLES.values():
        assert {*table} <= {*names}
    assert all(len(line) == 2 for line in lines)  # none without an explanation
    assert "2.036 bits/dim" in everything()
    assert "variants: digits:conditional, digits:ncsn" in everything()


def help_of(command, capsys):
    """What `diffusion-jax COMMAND --help` prints."""
    with (
        mock.patch.object(sys, "argv", ["diffusion-jax", command, "--help"]),
        pytest.raises(SystemExit, match="0"),
    ):
        program.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("command", program.COMMANDS)
def test_help_ends_with_five_examples(command, capsys):
    *_, examples = help_of(command, capsys).split("examples:\n")
    assert examples.count(f"  diffusion-jax {command} ") == len(examples.splitlines()) == 5
    if (ROOT / f"{command}.py").exists():
        done = run_inside([sys.executable, str(ROOT / f"{command}.py"), "--help"])
        assert done.stdout.count(f"  python {command}.py --") == 5


@pytest.mark.parametrize("command", program.COMMANDS)
def test_every_flag_of_the_examples_exists(command, capsys):
    """What --help shows is parsed; that it also runs, the other tests show flag by flag."""
    usage, examples = help_of(command, capsys).split("examples:\n")
    for word in examples.split():
        if word.startswith("--") and not word.startswith("--config."):
            assert word.partition("=")[0] in usage


def test_the_program_of_a_wheel_is_the_scripts(tmp_path):
    command = [sys.executable, "-m", "diffusion_jax"]

    def called(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)

    done = called("train", "--keys=ema")
    assert done.stdout == run_inside([sys.executable, str(ROOT / "train.py"), "--keys=ema"]).stdout
    assert "  python -m diffusion_jax sample --workdir" in called("sample", "--help").stdout
    commands = "train,sample,evaluate,check-data,export-images,certify"
    assert called().stdout.startswith(f"usage: diffusion-jax {{{commands}}}")
    done = called("tarin")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"unknown command 'tarin'; known: {commands.replace(',', ', ')}" in done.stderr


def test_a_dry_run_says_what_it_takes_and_writes_nothing(tmp_path):
    folder = tmp_path / "run"
    done = run_inside([*train(folder), "--dry_run"])
    assert done.returncode == 0, done.stderr
    assert not folder.exists()
    for what in (
        "1,437 images",
        "conv_in",
        "GFLOP",
        "MiB per device",
        "MiB on disk",
        "if started now",
    ):
        assert what in done.stdout
    assert "6 steps take" in done.stdout


def test_a_dry_run_refuses_what_training_would(tmp_path):
    done = run_inside([*train(tmp_path / "run", train__batch_size=6), "--dry_run"])
    assert done.returncode == 2
    assert "not divisible by the 4 devices" in done.stderr
    (tmp_path / "file").touch()
    done = run_inside([*train(tmp_path / "file" / "run"), "--dry_run"])
    assert done.returncode == 2
    assert "cannot write the workdir" in done.stderr


def test_a_step_that_does_not_fit_is_refused_before_it_runs(tmp_path):
    """Half a million images at once: compiled, so that its memory is known, but never run."""
    big = flags(train__batch_size=2**19, model__channels=64)
    done = run_inside([sys.executable, str(ROOT / "train.py"), "--dry_run", *big])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "GiB more than the" in done.stderr
    assert (
        "raise config.train.accumulate (1) or lower config.train.batch_size (524288)" in done.stderr
    )


def test_what_a_step_needs_is_what_xla_says():
    program = jax.jit(lambda a: (a + 1.0, a.sum())).lower(jax.numpy.ones(1000)).compile()
    assert 8000 <= dry_run.needed_bytes(program) < 20_000
    with pytest.raises(UserError, match=r"needs 3.0 GiB per device, 1.0 GiB more than the 2.0 GiB"):
        dry_run.check_step_fits(settings(), 3 * 2**30, 2 * 2**30)
    dry_run.check_step_fits(settings(), 2 * 2**30, 2 * 2**30)
