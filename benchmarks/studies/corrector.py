"""Compare the steps of the Langevin corrector by the Fréchet distance of a run's samples.

python -m benchmarks.studies.corrector --workdir runs/digits [--steps 25 100] [--images 256]
    [--seeds 6] [--out x.json]

Ancestral sampling alone with as many calls, `predictor_corrector` with several
`corrector_data_var`, and the published corrector, whose step is a ratio of norms over the batch.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

import diffusion_jax as dj
from benchmarks.harness import records
from benchmarks.studies.sample_quality import Judge
from diffusion_jax.command_line import as_path, positive, run
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import Moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import Variance
from diffusion_jax.samplers.base import Plan, Rows, Sampler, Stepped
from diffusion_jax.samplers.langevin import predictor_corrector

RATES = (0.01, 0.1)  # 4 r^2: a signal-to-noise ratio r of 0.05 and 0.16
DATA_VARS = (0.0, 0.01, 0.25)


def published_corrector(variance: Variance, langevin_rate: float = 0.1) -> Sampler:
    """Correct with delta = 4 (r |z| / |score|)^2, norms averaged over the batch.

    (Song et al. 2021, algorithm 4 and its code; algorithm 5 multiplies by alpha, nearly 1.)
    """
    ours = predictor_corrector(variance, 1, langevin_rate)

    def plan(grid: Schedule, moves: Moves) -> Plan:
        points, rows = ours.plan(grid, moves)
        corrects = np.arange(len(rows.index)) % 2 == 0
        return Plan(points, rows._replace(table=(rows.table, corrects)))

    def step(denoise, keys, x, row: Rows, carry) -> Stepped:
        table, corrects = row.table
        stepped = ours.step(denoise, keys, x, row._replace(table=table), carry)
        score = (row.signal * stepped.x0 - x) / jnp.square(row.noise)
        z = image_normal(fold(keys, 0), x.shape[1:])
        ratio = _mean_norm(z) / _mean_norm(score)
        delta = langevin_rate * jnp.square(ratio)
        corrected = x + 0.5 * delta * score + jnp.sqrt(delta) * z
        return stepped._replace(x=jnp.where(corrects, corrected, stepped.x))

    return Sampler(plan, ours.init, step)


def _mean_norm(x):
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2, 3))))


def measure(trained: dj.Run, given) -> dict[str, Any]:
    """Return one row per method, rate and number of steps."""
    judge, rows = Judge(trained, given.images, given.seeds), []

    def add(steps: int, **settings):
        sample = {"grid": "log_snr", "steps": steps, **settings}
        rows.append({**settings, **judge.of(trained.configured(sample=sample))})
        print(rows[-1], flush=True)

    for steps in given.steps:
        add(2 * steps, sampler="ancestral")
        for rate in RATES:
            corrected = {"sampler": "predictor_corrector", "langevin_steps": 1}
            for var in DATA_VARS:
                add(steps, **corrected, langevin_rate=rate, corrector_data_var=var)
            add(steps, sampler="published_corrector", langevin_rate=rate)
    return {**judge.about(), "rows": rows}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("studies.corrector", __doc__)
    parser.add_argument("--workdir", type=as_path, required=True, help="a trained run")
    parser.add_argument("--steps", type=positive, nargs="+", default=[25, 100])
    parser.add_argument("--images", type=positive, default=256, help="of every seed")
    parser.add_argument("--seeds", type=positive, default=6, help="at least 2")
    given = parser.parse_args(arguments)
    dj.SAMPLERS["published_corrector"] = published_corrector
    trained = dj.load(given.workdir)
    about = {"config": trained.config.name, "images": given.images, "seeds": given.seeds}
    records.save(given.out, {**about, **measure(trained, given)})


if __name__ == "__main__":
    run(main)
