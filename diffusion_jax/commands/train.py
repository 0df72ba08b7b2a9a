"""`train.py`: from a configuration to a run's folder."""

import shlex
import time
from pathlib import Path

from diffusion_jax.command_line import (
    Parser,
    as_path,
    called_as,
    integer,
    named,
    split_overrides,
)
from diffusion_jax.commands.listing import everything
from diffusion_jax.commands.verify import verify
from diffusion_jax.configuration import load, override
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.configuration.reference import listing
from diffusion_jax.errors import UserError
from diffusion_jax.processes import cluster
from diffusion_jax.run import folder, record
from diffusion_jax.run.dry_run import dry_run
from diffusion_jax.run.progress import say
from diffusion_jax.run.training import train_in_folder

DEFAULT = "digits"
EXAMPLES = """\
examples:
  {0} --config=digits
  {0} --config=digits:conditional --workdir=runs/labels --config.train.steps=2000
  {0} --config=cifar10 --config.data.dir=~/tensorflow_datasets --dry_run
  {0} --config=my_config.py --plugins=my_network.py
  {0} --config=digits --workdir=runs/next --init=runs/digits --config.seed=1
"""


def main(arguments: list[str]) -> None:
    """Train or resume the run that the arguments describe."""
    began = time.perf_counter()
    given, overrides = _parse(arguments)
    load_plugins(given.plugins)
    if given.list:
        return print(everything())
    if given.keys is not None:
        return print(listing(given.keys))
    if given.verify:
        if given.workdir is None:
            raise UserError("--verify needs the run's folder; add --workdir=RUN")
        return verify(given.workdir)
    config, workdir = _configured(given, overrides)
    check(config)
    if given.dry_run and given.coordinator:
        raise UserError("--dry_run looks at one process; leave --coordinator out")
    if given.dry_run:
        for line in dry_run(config, workdir, given.init or ""):
            print(line, flush=True)
        return
    folder.check_writable(workdir)
    cluster.join(given.coordinator, given.num_processes, given.process_id)
    train_in_folder(config, workdir, progress=True, began=began, init=given.init or "")
    say(f"next: {called_as('sample')} --workdir={shlex.quote(str(workdir))}")


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    command = called_as("train")
    parser = Parser(
        prog=command,
        description="Train a diffusion model, or resume a stopped run.",
        examples=EXAMPLES.format(command),
    )
    parser.add_config(
        f"a shipped config by name, or a Python file; default: that of the run in --workdir, "
        f"or {DEFAULT}"
    )
    parser.add_argument("--workdir", type=as_path, help="the run's folder; default: runs/NAME")
    parser.add_argument(
        "--init",
        type=named,
        metavar="RUN[:STEP]",
        help="start a new run from the weights of another one",
    )
    parser.add_plugins("your own files, which add networks, schedules, ...")
    parser.add_argument(
        "--dry_run", action="store_true", help="only check everything, and predict time and memory"
    )
    parser.add_argument(
        "--verify", action="store_true", help="only verify the checksums of the run's checkpoints"
    )
    parser.add_argument(
        "--list", action="store_true", help="only list configs, data sets, schedules, samplers, ..."
    )
    parser.add_argument(
        "--keys", nargs="?", const="", metavar="GROUP", help="only list the config's keys"
    )
    several = parser.add_argument_group("several processes, if JAX does not detect them itself")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    several.add_argument("--num_processes", type=integer)
    several.add_argument("--process_id", type=integer, help="0 to num_processes - 1")
    return parser.parse_args(rest), overrides


def _configured(given, overrides):
    if given.config is None and given.workdir and (given.workdir / "config.json").is_file():
        print(f"resuming {given.workdir} with its own config", flush=True)
        config = record.read(given.workdir).config
        for key, text in overrides:
            override(config, key, text)
        return config, given.workdir
    if given.config is None:
        print(f"no --config given: training the config '{DEFAULT}'", flush=True)
    config = load(given.config or DEFAULT, overrides)
    return config, given.workdir or Path("runs") / config.name
