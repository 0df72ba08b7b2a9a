"""Output for the user: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from diffusion_jax.errors import counted, printable
from diffusion_jax.processes import cluster

RATE_AFTER = 10.0  # seconds of training before its speed is printed
Say = Callable[[str], None]


def output(progress: bool) -> tuple[Say, Say]:
    """Return `(say, warn)`, which print a line and a warning.

    Without `progress`, `say` is silent and `warn` issues Python warnings.
    """
    if not progress:
        return (lambda line: None), (lambda line: warnings.warn(line, stacklevel=3))
    return say, warn


def say(line: str) -> None:
    """Print a line to stdout, on the first process."""
    if cluster.is_first():
        print(printable_lines(line), flush=True)


def printable_lines(text: str) -> str:
    """Escape what is not printable, such as terminal codes in the name of a folder."""
    return "\n".join(printable(line) for line in text.split("\n"))


def warn(line: str) -> None:
    """Print a warning to stderr, on the first process."""
    if cluster.is_first():
        print(f"warning: {printable(line)}", file=sys.stderr, flush=True)


def _bar(quiet: bool, **options: Any) -> tqdm:
    """Return a bar on stdout, disabled if quiet or if that is no terminal."""
    disable = quiet or not sys.stdout.isatty()
    return tqdm(file=sys.stdout, dynamic_ncols=True, disable=disable, **options)


class TrainingProgress:
    """Progress of a training run, written to stdout unless `quiet`.

    Args:
        warn: where warnings go if quiet.
    """

    def __init__(self, steps: int, start: int, quiet: bool = False, warn: Say = lambda line: None):
        self._steps, self._start, self._began = steps, start, time.perf_counter()
        self._quiet, self._warn = quiet, warn
        self._at, self._rated = start, False
        self._bar = _bar(quiet, total=steps, initial=start, unit="step")

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        if self._quiet:
            return
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Print one line, or issue a warning if quiet."""
        if self._quiet:
            self._warn(text)
        self.line(text)

    def advance(self, step: int, **values: float) -> None:
        """Advance to `step`, and show the metrics of logged steps."""
        self._bar.update(step - self._at)
        self._at = step
        if not values:
            self._first_rate(step)
            return
        shown = f"loss {values['loss']:.4g}, {values['images_per_second']:.0f} images/s"
        if not self._bar.disable:
            self._bar.set_postfix_str(shown)
        else:
            self._rated = self._rated or bool(self._left(step))
            self.line(f"step {step}/{self._steps}: {shown}{self._left(step)}")

    def _first_rate(self, step: int) -> None:
        """Print the speed once, early, however rarely metrics are logged."""
        seconds = time.perf_counter() - self._began
        if self._rated or not self._bar.disable or seconds < RATE_AFTER or not self._left(step):
            return
        self._rated = True
        each = seconds / (step - self._start)
        self.line(f"step {step}/{self._steps}: {each:.3g} s per step{self._left(step)}")

    def _left(self, step: int) -> str:
        if step - self._start < 2:
            return ""  # too early: the first step may include compiling
        elapsed = time.perf_counter() - self._began
        seconds = elapsed / (step - self._start) * (self._steps - step)
        return f", {tqdm.format_interval(seconds)} left"

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


class ImageProgress:
    """Progress over images as a share of the work, written to stdout unless `quiet`.

    Args:
        word: the verb to show, such as "sampled".
    """

    def __init__(self, num: int, word: str, quiet: bool = False):
        self._num, self._word, self._quiet = num, word, quiet
        self._done = self._said = 0.0
        shown = "{l_bar}{bar}| of {total} images [{elapsed}<{remaining}]"
        self._bar = _bar(quiet, total=num, desc=word, unit="image", bar_format=shown)

    def __call__(self, done: float) -> None:
        """Report the number of images done; a batch counts in proportion to its finished steps."""
        if done <= self._done:
            return
        self._bar.update(done - self._done)
        self._done = done
        if self._quiet or not self._bar.disable:
            return
        if done >= self._num or done - self._said >= self._num / 4:
            share = int(100 * done / self._num)
            print(f"{self._word} {share}% of {counted(self._num, 'image')}", flush=True)
            self._said = done

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
