"""JAX's profiler over some steps of a run."""

from pathlib import Path
from typing import Any

import jax


class Profiler:
    """Traces the steps `first` to `last`, for TensorBoard or Perfetto; both 0 for none."""

    def __init__(self, folder: Path, first: int = 0, last: int = 0):
        self._folder, self._first, self._last, self._on = folder, first, last, False

    def before(self, step: int, state: Any) -> None:
        """Told before each step, with the state that the step before it gives."""
        if not self._on and self._first <= step <= self._last:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        elif step > self._last:
            self.close(state)

    def close(self, state: Any = None) -> None:
        """End the trace if one is being taken."""
        if self._on:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._on = False
