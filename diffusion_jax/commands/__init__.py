"""What the scripts call."""

from diffusion_jax.allocator import keep_freed_memory

keep_freed_memory()  # before any command imports JAX
