"""A stage in a process of its own, so that the accelerator is free again afterwards.

python -m benchmarks.accelerator.stage NAME OPTIONS_JSON   (`benchmarks.accelerator` starts it)
python -m benchmarks.accelerator.stage probe               (prints what the devices are)
"""

import importlib
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerator.results import Results
from diffusion_jax.command_line import run

# Each module has `items(options, results, stack)`, which returns what the stage measures, by name
# and in order; `stack` closes what the items share.
MODULES = {
    "device": "rates",
    "tests": "checks",
    "step": "step_speed",
    "sample": "sample_speed",
    "train": "training",
}
# Stages that leave nothing out: what they find belongs together.
WHOLE = ("tests", "train")


class Options(NamedTuple):
    """The arguments of a stage.

    device: what `probe` printed; seconds: how long it may take; out: the folder of the results.
    data: see `data.open_data`; workdir: the run's folder; train_minutes: of a training that goes
    on in later calls, 0 for what is left; peers: an interpreter that has torch, empty for none.
    """

    device: dict[str, Any]
    seconds: float
    out: str
    data: str
    workdir: str
    train_minutes: float
    peers: str

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal on a CPU, with a network of a few thousand parameters."""
        return self.device["platform"] == "cpu"


def probe() -> dict[str, Any]:
    """Return the devices' platform and kinds, and what their driver says of itself."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kinds": [device.device_kind for device in devices],
        "driver": devices[0].client.platform_version,
    }


def main(arguments: Sequence[str]) -> None:
    """Measure one stage."""
    name, *rest = arguments
    if name == "probe":
        return print(json.dumps(probe()))
    options = Options(**json.loads(rest[0]))
    module = importlib.import_module(f"benchmarks.accelerator.{MODULES[name]}")
    results = Results(Path(options.out) / f"{name}.json", options.device, options.seconds)
    with ExitStack() as stack:
        results.take(module.items(options, results, stack), always=name in WHOLE)
    failed = [key for key, item in results.items.items() if "error" in item]
    if failed:
        sys.exit(f"{name}: {', '.join(failed)} failed")


if __name__ == "__main__":
    run(main)
