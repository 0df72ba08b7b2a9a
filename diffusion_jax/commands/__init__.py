"""The commands of `diffusion-jax`; train.py, sample.py and evaluate.py call three of them."""
