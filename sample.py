"""Sample from a trained run: python sample.py --workdir=runs/digits [--num=64] [--out=x.png]"""

from diffusion_jax.start import start

if __name__ == "__main__":
    start("sample")
