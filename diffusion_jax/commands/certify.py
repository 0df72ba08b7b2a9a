"""`certify`: hold the functions that a configuration chooses against known truth."""

from diffusion_jax.certification.certificate import Certificate, judged, line
from diffusion_jax.certification.report import page
from diffusion_jax.command_line import (
    Parser,
    as_path,
    called_as,
    check_file,
    positive,
    split_overrides,
)
from diffusion_jax.configuration import load
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.errors import Uncertified, UserError, counted
from diffusion_jax.files import replacing

EXAMPLES = """\
examples:
  {0} --config=digits
  {0} --config=cifar10 --out=certificate.html
  {0} --config=digits --config.sample.sampler=dpmpp_2m
  {0} --config=digits --config.weight=my_weight --plugins=my_weight.py
  {0} --config=my_config.py:variant
"""


def main(arguments: list[str]) -> None:
    """Judge every law of a configuration, and print each as soon as it is judged."""
    rest, overrides = split_overrides(arguments)
    command = called_as("certify")
    parser = Parser(
        prog=command,
        description="Hold the functions of a config against known truth: no training, no data.",
        examples=EXAMPLES.format(command),
    )
    parser.add_config("a shipped config by name, or a Python file", required=True)
    parser.add_argument("--out", type=as_path, metavar="X.html", help="also write a report")
    parser.add_argument(
        "--levels", type=positive, default=256, help="values that a pixel can take; default: 256"
    )
    parser.add_plugins("your own files that the config needs")
    given = parser.parse_args(rest)
    if not 3 <= given.levels <= 256:
        raise UserError(f"--levels {given.levels}: must lie between 3 and 256")
    if given.out and (given.out.suffix.lower() != ".html" or given.out.is_dir()):
        raise UserError(f"--out {given.out}: expected a name ending in .html")
    load_plugins(given.plugins)
    config = load(given.config, overrides)
    if given.out:
        check_file(given.out)
    laws = []
    for law in judged(config, given.levels):
        print(line(law), flush=True)
        laws.append(law)
    certificate = Certificate(config, tuple(laws))
    if given.out:
        with replacing(given.out) as file:
            file.write(page(certificate, f"Certificate of {given.config}"))
        print(f"wrote {given.out}")
    if certificate.failed:
        first = certificate.failed[0]
        raise Uncertified(
            f"{counted(len(certificate.failed), 'law')} of {len(laws)} failed, first: "
            f"{first.subject}: {first.statement} {first.measured} ({first.allowed})"
        )
    print(f"none of {counted(len(laws), 'law')} failed")
