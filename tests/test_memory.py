"""As many images are drawn at once as memory holds, and they are the same images."""

import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from PIL import Image
from tiny import Tiny

from diffusion_jax import build
from diffusion_jax.devices.sharding import shardings
from diffusion_jax.run.progress_grid import make_draw
from diffusion_jax.samplers import batch_size
from diffusion_jax.samplers.batch_size import (
    AT_ONCE_ON_CPU,
    SHARE_OF_FREE,
    at_once,
    free_bytes,
    largest_fitting,
)
from diffusion_jax.samplers.generate import make_generate

pytestmark = pytest.mark.usefixtures("hurried_compiler")


def compiled(n):
    """A program that needs memory for n rows."""
    return jax.jit(jnp.sin).lower(jnp.ones((n, 256))).compile()


def used(n):
    """The bytes of that program."""
    analysis = compiled(n).memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


@pytest.mark.parametrize("n", [1, 8, 32])
def test_the_largest_program_that_fits_is_taken(n):
    assert largest_fitting(compiled, 32, used(n) / SHARE_OF_FREE + 1) == n
    assert largest_fitting(compiled, 32, used(n) / SHARE_OF_FREE - 1) == max(1, n // 2)


def test_memory_that_is_not_known_holds_all():
    assert largest_fitting(compiled, 32, math.inf) == 32


def test_a_compiler_that_runs_out_of_memory_is_heard():
    def exhausting(n):
        jnp.zeros(2 ** (13 * n)).block_until_ready()  # 16 PiB of zeros for four
        return compiled(n)

    assert largest_fitting(exhausting, 4, math.inf) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        largest_fitting(lambda n: exhausting(4), 1, math.inf)


def test_devices_share_what_the_machine_has():
    devices = jax.local_devices(backend="cpu")
    assert 0 < free_bytes(devices) * len(devices) < psutil.virtual_memory().total
    assert free_bytes(devices * 2) < 0.9 * free_bytes(devices)


def test_a_containers_limit_is_the_machines(monkeypatch, tmp_path):
    monkeypatch.setattr(batch_size, "CONTAINER", tmp_path)
    devices = jax.local_devices(backend="cpu")[:1]
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(devices) > 2e6
    (tmp_path / "memory.max").write_text("3000000\n")
    assert free_bytes(devices) == 2e6
    (tmp_path / "memory.stat").write_text("anon 9\nactive_file 300000\ninactive_file 500000\n")
    assert free_bytes(devices) == 2.8e6  # files that are cached make room


@pytest.mark.parametrize("num", [1, 5, 64, 70, 1000])
def test_batches_are_few_and_full(num):
    devices = jax.local_devices(backend="cpu")[:2]
    most = AT_ONCE_ON_CPU * len(devices)
    size = at_once(num, devices)
    batches = math.ceil(num / size)
    assert size <= most
    assert batches == math.ceil(num / most)
    assert batches * size - num < batches


def test_one_at_a_time_gives_the_same_images_and_compiles_no_more(monkeypatch, caplog):
    tiny = Tiny(model__classes=10, sample__steps=3)
    method = build.method(tiny.config, tiny.diffusion)
    params, layout = tiny.params(), shardings(jax.devices()[:1])
    wanted = [0, 1, *range(5, 12)]

    def drawn(free, progress):
        monkeypatch.setattr(batch_size, "free_bytes", lambda devices: free)
        return list(make_generate(method, layout, 4)(params, 0, wanted, progress))

    whole, heard = drawn(math.inf, lambda done: None), []
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        single = drawn(0, heard.append)
    assert [each.index.tolist() for each in whole] == [[0, 1], [5, 6, 7], [8, 9, 10, 11]]
    assert [each.index.tolist() for each in single] == [[i] for i in wanted]
    for name in ("label", "images"):
        ours, theirs = (
            np.concatenate([getattr(batch, name) for batch in each]) for each in (single, whole)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    compilations = [text for text in caplog.messages if "XLA compilation of jit(advance)" in text]
    assert len(compilations) == 3  # of 4, of 2 and of 1
    assert heard == sorted(heard)
    assert heard[-1] == len(wanted)


def test_a_grid_in_training_is_the_same_from_more_batches(monkeypatch, tmp_path):
    tiny = Tiny(model__classes=10, sample__num=2 * jax.device_count(), sample__steps=2)
    pictures = []
    for name, free in (("whole", math.inf), ("parts", 0)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(batch_size, "free_bytes", lambda devices, free=free: free)
        draw = make_draw(tiny.config, tiny.diffusion, tmp_path / name)
        with Image.open(draw(0, tiny.state().ema, lambda: False)) as picture:
            pictures.append(np.asarray(picture).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
