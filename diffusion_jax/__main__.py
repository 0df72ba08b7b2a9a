"""`diffusion-jax COMMAND ...`, also `python -m diffusion_jax COMMAND ...`."""

import sys
from pathlib import Path

from diffusion_jax.start import start

COMMANDS = ("train", "sample", "evaluate", "check-data", "export-images", "certify")
USAGE = f"""\
usage: diffusion-jax {{{",".join(COMMANDS)}}} [arguments]

  diffusion-jax train --config=digits            train a model, or resume it
  diffusion-jax sample --workdir=runs/digits     draw images from it
  diffusion-jax evaluate --workdir=runs/digits   measure its bits per dimension
  diffusion-jax check-data FOLDER                look at your own pictures before training
  diffusion-jax export-images --config=digits --out=real/
                                                 write a data set's images for FID tools
  diffusion-jax certify --config=digits          hold the chosen functions against known truth
  diffusion-jax train --list                     list configs, data sets, schedules, samplers, ...
  diffusion-jax train --help                     show all arguments of a command"""


def main() -> None:
    """Run the command that the first argument names."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return
    if command not in COMMANDS:
        print(f"error: unknown command '{command}'; known: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    as_module = Path(sys.argv[0]).name == "__main__.py"
    sys.argv = ["python -m diffusion_jax" if as_module else "diffusion-jax", *rest]
    start(command.replace("-", "_"))


if __name__ == "__main__":
    main()
