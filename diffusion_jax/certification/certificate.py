"""A certificate: all laws of a configuration, judged one after another."""

from collections.abc import Iterator
from typing import NamedTuple

from diffusion_jax.certification import draws, loss, path, prediction, reverse, sampler
from diffusion_jax.certification.law import FAILS, UNJUDGED, WARNS, Law
from diffusion_jax.certification.subject import subject
from diffusion_jax.configuration import Config, load
from diffusion_jax.configuration.check import check
from diffusion_jax.errors import UserError

PARTS = {
    "schedule.name": path.laws,
    "prediction": prediction.laws,
    "timesteps": draws.laws,
    "loss": loss.laws,
    "variance": reverse.laws,
    "sample.sampler": sampler.laws,
}


class Certificate(NamedTuple):
    """The laws of a configuration and their verdicts."""

    config: Config
    laws: tuple[Law, ...]

    @property
    def holds(self) -> bool:
        """Whether no law fails."""
        return not self.failed

    @property
    def failed(self) -> tuple[Law, ...]:
        """The laws that fail."""
        return tuple(law for law in self.laws if law.verdict == FAILS)


def judged(config: Config, levels: int = 256) -> Iterator[Law]:
    """Judge the functions that a configuration chooses, law by law.

    Args:
        levels: how many values a pixel can take, on which some schedules depend.

    Raises:
        UserError: the configuration is wrong, or a function of it cannot be called.
    """
    check(config)
    about = subject(config, levels)
    for key, laws in PARTS.items():
        last = "its first law"
        try:
            for law in laws(about):
                last = f"the law after '{law.statement}'"
                yield law
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise UserError(
                f"{about.name(key)}: {last} stopped with {type(error).__name__}: {reason}"
            ) from error


def certify(config: str | Config, levels: int = 256) -> Certificate:
    """Hold the functions that a configuration chooses against known truth.

    The configured schedule, prediction, timesteps, loss, weight, variance, decoder and sampler are
    judged on 1-D data whose densities, entropies and denoisers are known. No network is called, and
    no data set is read.

    Args:
        config: a configuration, or the name of one.
        levels: how many values a pixel can take.

    Raises:
        UserError: the configuration is wrong, or a function of it cannot be called.
    """
    given: Config = load(config) if isinstance(config, str) else config
    return Certificate(given, tuple(judged(given, levels)))


def line(law: Law) -> str:
    """Return one line of text on a law."""
    note = f"  [{law.note}]" if law.note and (law.verdict in (FAILS, WARNS, UNJUDGED)) else ""
    allowed = f" ({law.allowed})" if law.allowed != "-" else ""
    return f"{law.verdict:<10} {law.subject}: {law.statement} {law.measured}{allowed}{note}"
