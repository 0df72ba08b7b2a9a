"""One script a question; each prints its answer and can write it as JSON."""

from diffusion_jax.allocator import keep_freed_memory

keep_freed_memory()  # as the commands do, before a script imports JAX, or torch
