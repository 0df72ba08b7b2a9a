"""What the papers' recipes are, fact by fact with its source, and their terms of the bound.

Sources: `Ho` is github.com/hojonathanho/diffusion at 1e0dceb, `Nichol` openai/improved-diffusion at
1bc7bbb, `Song` ermongroup/ncsn at 7f27f4a, each as file:line; "paper" is the paper itself.
"""

import math
from typing import Any

import numpy as np
from scipy.special import ndtr

COSINE = np.cos((np.arange(3) / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2  # alpha_bar at 0, 1, 2
FIRST, SECOND = 1.0 - COSINE[1:] / COSINE[:-1]
SMALL = SECOND * FIRST / (1.0 - COSINE[2] / COSINE[0])  # the posterior variance of the second step
FACTS: list[tuple[str, str, Any, str]] = [
    ("ddpm", "betas", [1e-4, 0.02], "Ho scripts/run_cifar.py:135, paper section 4"),
    ("ddpm", "decoder", 2 * [5.4532e-5], "Ho diffusion_utils_2.py:142"),
    ("ddpm", "even t", False, "Ho scripts/run_cifar.py:49"),
    ("ddpm", "average", 3 * [0.9999], "Ho tpu_utils.py:90 and 104; the first update has rate 0"),
    ("ddpm", "clipping", 1.0, "Ho scripts/run_cifar.py:134"),
    ("ddpm", "learning rate", [0.0, 4e-8, 2e-4], "Ho utils.py:145, run_cifar.py:134"),
    ("ddpm", "adam", [0.9, 0.999, 1e-8, 0.0], "Ho utils.py:154 and 158"),
    ("ddpm", "parameters", 35_746_307, "counted from Ho unet.py:87; paper appendix B: 35.7M"),
    ("ddpm", "sampling", [1000, 1000, 0.0], "Ho diffusion_utils_2.py:195 and 205"),
    ("ddpm", "flips", True, "Ho run_cifar.py:137"),
    ("ddpm", "x0 clipped", True, "Ho diffusion_utils_2.py:186"),
    ("ddpm:mean_bound", "x0 clipped", False, "Ho diffusion_utils_2.py:154: the mean is not"),
    ("ddpm", "dropout", 0.1, "Ho run_cifar.py:137"),
    ("ddpm", "batch", 128, "Ho run_cifar.py:134"),
    ("ddpm", "steps", 800_000, "paper appendix B"),
    ("improved_ddpm", "betas", [FIRST, 0.999], "Nichol gaussian_diffusion.py:36 and 45"),
    ("improved_ddpm", "decoder", [SMALL, FIRST], "Nichol gaussian_diffusion.py:269"),
    ("improved_ddpm", "even t", False, "Nichol scripts/image_train.py:63"),
    ("improved_ddpm:vlb", "even t", False, "Nichol resample.py:54, README.md:145"),
    ("improved_ddpm", "average", 3 * [0.9999], "Nichol train_util.py:91, nn.py:55"),
    ("improved_ddpm", "clipping", 1e3, "Nichol train_util.py:244: none"),
    ("improved_ddpm", "learning rate", 3 * [1e-4], "Nichol README.md:97, train_util.py:257"),
    ("improved_ddpm", "adam", [0.9, 0.999, 1e-8, 0.0], "Nichol train_util.py:82: PyTorch's"),
    (
        "improved_ddpm",
        "parameters",
        52_546_438,
        "counted from Nichol unet.py:336; README: 50M",
    ),
    ("improved_ddpm", "sampling", [4000, 4000, 0.0], "Nichol gaussian_diffusion.py:385 and 457"),
    ("improved_ddpm", "flips", False, "Nichol image_datasets.py:78: none"),
    ("improved_ddpm", "dropout", 0.3, "Nichol README.md:95"),
    ("improved_ddpm", "batch", 128, "Nichol README.md:97"),
    ("improved_ddpm", "steps", 500_000, "Nichol README.md:92: 500K"),
    ("ncsn", "noise levels", [2 * 0.01, 2 * 1.0], "Song configs/anneal.yml:32, for data in [0, 1]"),
    ("ncsn", "even t", False, "Song anneal_runner.py:140"),
    ("ncsn", "average", 3 * [0.0], "Song anneal_runner.py:178: none"),
    ("ncsn", "clipping", 1e3, "Song anneal_runner.py:147: none"),
    ("ncsn", "learning rate", 3 * [1e-3], "Song configs/anneal.yml:44"),
    ("ncsn", "adam", [0.9, 0.999, 1e-8, 0.0], "Song anneal_runner.py:30"),
    ("ncsn", "sampling", [10, 1000, 1.0], "Song anneal_runner.py:203: the noise is not removed"),
    ("ncsn", "noise", 2 * math.sqrt(2 * 2e-5) * 1.0 / 0.01, "Song anneal_runner.py:203 to 213"),
    ("ncsn", "flips", False, "Song configs/anneal.yml:16"),
    ("ncsn:cifar10", "flips", True, "Song configs/anneal.yml:29"),
    ("ncsn", "batch", 128, "Song configs/anneal.yml:2"),
    ("ncsn", "steps", 200_000, "Song configs/anneal.yml:4, which counts one more"),
]


class Chain:
    """One step t of a chain of forward variances, in float64 and with exact normal CDFs.

    As in Ho diffusion_utils_2.py:64 to 142 and 257, Nichol gaussian_diffusion.py:262 and 642.
    """

    def __init__(self, beta, t):
        ab = np.cumprod(1.0 - beta)
        before = np.append(1.0, ab[:-1])
        posterior = beta * (1.0 - before) / (1.0 - ab)
        posterior[0] = posterior[1]
        self.t, self.beta, self.posterior = t, beta[t], posterior[t]
        self.signal, self.noise = math.sqrt(ab[t]), math.sqrt(1.0 - ab[t])
        self.to_x0 = (beta * np.sqrt(before) / (1.0 - ab))[t]
        self.to_xt = ((1.0 - before) * np.sqrt(1.0 - beta) / (1.0 - ab))[t]

    def xt(self, x0, eps):
        return self.signal * x0 + self.noise * eps

    def mean(self, x0, xt):
        """The posterior's, which is what a network that predicts x_{t-1} is asked for."""
        return self.to_x0 * x0 + self.to_xt * xt

    def mean_of(self, predicted, y, xt):
        return y if predicted == "mean" else self.mean((xt - self.noise * y) / self.signal, xt)

    def log_var(self, variance, v):
        """Of the model, from the second half of the network's output."""
        if variance == "learned_log_variance":
            return v
        low, high = math.log(self.posterior), math.log(self.beta)
        if variance == "learned_range":
            return 0.5 * (1.0 + v) * high + 0.5 * (1.0 - v) * low
        return high if self.t else low  # fixed large

    def bits(self, x0, xt, mean, log_var):
        """One term of the bound per image, in bits per dimension."""
        if self.t:
            ratio = log_var - math.log(self.posterior)
            square = (self.mean(x0, xt) - mean) ** 2 * np.exp(-log_var)
            nats = 0.5 * (ratio - 1.0 + np.exp(-ratio) + square)
        else:
            std = np.exp(0.5 * log_var)
            high, low = ((x0 + sign / 255.0 - mean) / std for sign in (1.0, -1.0))
            upper = np.where(x0 > 0.999, 1.0, ndtr(high))
            nats = -np.log(upper - np.where(x0 < -0.999, 0.0, ndtr(low)))
        return nats.mean((1, 2, 3)) / math.log(2.0)
