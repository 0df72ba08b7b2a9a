"""Steps of diffusers' schedulers from given x and noise; imports nothing of ours.

PEERS_PYTHON peers.py given.npz steps.npz
"""

import sys
from unittest import mock

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from diffusers.schedulers import scheduling_ddpm

BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PINNED = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
}
DDIM = {"clip_sample": False, "set_alpha_to_one": True}
SECOND = {
    "solver_order": 2,
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "euler_at_final": True,  # only the first and the last step are of first order
}

# Each scheduler, its settings, and what its step is told besides.
PEERS = {
    "ddpm_small": (DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}, {}),
    "ddpm_large": (DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_large"}, {}),
    "ddim_0": (DDIMScheduler, DDIM, {"eta": 0.0}),
    "ddim_half": (DDIMScheduler, DDIM, {"eta": 0.5}),
    "ddim_1": (DDIMScheduler, DDIM, {"eta": 1.0}),
    "euler": (EulerDiscreteScheduler, {"final_sigmas_type": "zero"}, {}),
    "heun": (HeunDiscreteScheduler, {"clip_sample": False}, {}),
    "2m": (DPMSolverMultistepScheduler, {**SECOND, "algorithm_type": "dpmsolver++"}, {}),
    "sde": (DPMSolverMultistepScheduler, {**SECOND, "algorithm_type": "sde-dpmsolver++"}, {}),
}


def exact(scheduler, betas: np.ndarray, steps: int) -> np.ndarray:
    """Put float64 tables in place of a scheduler's own; the signal at each call and at the end."""
    scheduler.betas = torch.from_numpy(betas)
    scheduler.alphas = 1.0 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.set_timesteps(steps)
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps.long()]
    alpha_bar = torch.cat([alpha_bar, torch.ones(1, dtype=torch.float64)])
    if hasattr(scheduler, "sigmas"):
        sigmas = ((1.0 - alpha_bar) / alpha_bar).sqrt()
        torch.testing.assert_close(scheduler.sigmas, sigmas.float(), rtol=1e-5, atol=0.0)
        scheduler.sigmas = sigmas
    return alpha_bar.sqrt().numpy()


def steps_of(scheduler, told: dict, signal: np.ndarray, x, draws, noise) -> np.ndarray:
    """x after each call, every call from its own given x; histories run on."""
    unscaled = isinstance(scheduler, (EulerDiscreteScheduler, HeunDiscreteScheduler))
    after = []
    for i, t in enumerate(scheduler.timesteps):
        state = torch.from_numpy(x[i] / (signal[i] if unscaled else 1.0)).double()
        if isinstance(scheduler, EulerDiscreteScheduler):
            state = state.float().double()  # its step rounds; so the network sees the same
        seen = scheduler.scale_model_input(state, t)
        output = np.sqrt(1.0 - signal[i] ** 2) * seen + 0.3 * signal[i] * noise
        if isinstance(scheduler, (DDIMScheduler, DPMSolverMultistepScheduler)):
            told = {**told, "variance_noise": draws[i]}
        # DDPM draws for itself, and onto the data too unless t = 0, where algorithm 2 of Ho et al.
        # 2020 takes the mean.
        drawn = draws[i] if signal[i + 1] < 1.0 else torch.zeros_like(state)
        with mock.patch.object(scheduling_ddpm, "randn_tensor", return_value=drawn):
            end = scheduler.step(output, t, state, return_dict=False, **told)[0]
        after.append(end.numpy() * (signal[i + 1] if unscaled else 1.0))
    return np.stack(after)


def main(given_file: str, steps_file: str) -> None:
    """Read `schedule/precision/steps/peer/x` and `/noise`, write `/x` and `/t`."""
    given, answers = np.load(given_file), {}
    noise = torch.from_numpy(given["noise"])
    for key in given.files:
        if not key.endswith("/x"):
            continue
        case = key.removesuffix("/x")
        schedule, _, steps, name = case.split("/")
        kind, settings, told = PEERS[name]
        scheduler = kind(beta_schedule=BETAS[schedule], **PINNED, **settings)
        answers[f"{schedule}/betas"] = scheduler.betas.numpy()
        signal = exact(scheduler, given[f"{schedule}/betas"], int(steps))
        draws = torch.from_numpy(given[f"{case}/noise"]).double()
        answers[f"{case}/t"] = scheduler.timesteps.numpy()
        answers[key] = steps_of(scheduler, told, signal, given[key], draws, noise)
    np.savez(steps_file, **answers)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
