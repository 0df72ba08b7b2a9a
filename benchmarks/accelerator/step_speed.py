"""Stage `step`: CIFAR-10's training step, beside PyTorch's and with other options of XLA."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax

from benchmarks.accelerator.networks import job, rounds, start_peer
from benchmarks.accelerator.rates import PRECISIONS
from benchmarks.accelerator.results import Results
from benchmarks.harness import comparison, programs, timing
from diffusion_jax.devices.compiler import enable_cache, known

BATCHES, SMALL_BATCHES = (256, 512, 128), (16, 8)

WORTH = 1.02  # times as fast, above which an option is proposed
# Options beside those of `compiler.py`, each tried alone.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "gpu": {
        "latency_hiding": {"xla_gpu_enable_latency_hiding_scheduler": True},
        "no_triton_gemm": {"xla_gpu_enable_triton_gemm": False},
        "no_command_buffers": {"xla_gpu_enable_command_buffer": ""},
        "autotune_least": {"xla_gpu_autotune_level": 1},
    },
    "tpu": {"latency_hiding": {"xla_tpu_enable_latency_hiding_scheduler": True}},
    "cpu": {"sequential": {"xla_cpu_enable_concurrency_optimized_scheduler": False}},
}


def items(options, results: Results, stack: ExitStack) -> dict:
    """The step in bfloat16 first, then XLA's options, then the other precisions."""
    enable_cache()
    batches = SMALL_BATCHES if options.small else BATCHES
    more = OPTIONS.get(options.device["platform"], {})
    steps = {
        f"{precision}_b{batch}": partial(step, options, precision, batch)
        for batch in batches
        for precision in PRECISIONS
    }
    first = {name: steps.pop(name) for name in [f"bfloat16_b{batch}" for batch in batches[:2]]}
    tried = {
        f"xla_{name}": partial(with_options, options, batches[0], each)
        for name, each in more.items()
    }
    return {**first, **tried, **steps}


def step(options, name: str, batch: int) -> dict[str, Any]:
    """Measure our step and PyTorch's in turn: both compile at the same time, then take turns.

    PyTorch has no part in float32 with full products, which nobody trains with.
    """
    dtype, precision = PRECISIONS[name]
    one = job(options, batch, dtype)
    with ExitStack() as stack, jax.default_matmul_precision(precision):
        with ThreadPoolExecutor(1) as background:
            wanted = name != "float32"
            starting = (
                background.submit(start_peer, options, one, stack, "train") if wanted else None
            )
            program, seconds = compiled(one)
        peers, said = starting.result() if starting else ([], {})
        found = comparison.compare(one, program, peers, ("train",), rounds(options))
        memory = [each.ask("memory").get("device_peak", 0) for each in peers]
    return {
        "images_per_second": batch / found["seconds"]["ours"],
        **{f"{each.name}_images_per_second": batch / found["seconds"][each.name] for each in peers},
        **({"ratio": found["ratio"]} if peers else {}),
        "mfu": found["mfu"],
        "compile_seconds": seconds,
        "bytes": used_bytes(program),
        **({"peer_bytes": memory[0]} if peers else {}),
        "batch": batch,
        **said,
        "measured": found,
    }


def with_options(options, batch: int, more: dict[str, Any]) -> dict[str, Any]:
    """Measure the step in bfloat16 with more of XLA's options, in turn with the step as it is."""
    if not known(more):
        return {"left_out": f"this compiler does not take {', '.join(more)}"}
    one = job(options, batch)
    began = time.perf_counter()
    program = programs.train_step(one, **more)
    seconds = time.perf_counter() - began
    calls = {"as_it_is": compiled(one)[0].call, "with_options": program.call}
    timed = {name: partial(timing.timed, call) for name, call in calls.items()}
    found = timing.in_turn(timed, rounds(options).rounds)
    return {
        "speed_over_as_it_is": (speed := timing.ratio(found, "as_it_is", "with_options")),
        "worth_its_line_in_compiler_py": speed >= WORTH,
        "compile_seconds": seconds,
        "options": more,
        "rounds": found,
    }


def compiled(one: programs.Job) -> tuple[programs.Program, float]:
    """Compile the step, or read it from the cache; return it and the seconds that took."""
    began = time.perf_counter()
    program = programs.train_step(one)
    return program, time.perf_counter() - began


def used_bytes(program: programs.Program) -> int:
    """Count what the compiled step needs on each device: state, batch and temporaries."""
    used = program.compiled.memory_analysis()
    ends = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return ends + used.temp_size_in_bytes
