"""Every key of a configuration, declared once: its default, type, range and meaning.

Keys that belong to no function are declared in `DECLARED`. All other keys are keyword arguments of
the functions in `tables.TABLES`, or fields of the networks there: default and type are those of the
signature, and the meaning is the argument's line in the docstring. They stand in the group of the
key that names the function: `cosine(steps, beta_max=0.999)` is called with
`config.schedule.beta_max` because `config.schedule.name` names it. The files in `configs/` change
defaults.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from diffusion_jax.configuration.signatures import Key, arguments
from diffusion_jax.configuration.tables import SUPPLIED, TABLES, defined_by_user
from diffusion_jax.devices.sharding import MODES
from diffusion_jax.errors import UserError, unknown_name

LARGEST = 2**31 - 1
OWN = "one of your own needs the file that defines it: --plugins=FILE"


def keys(names: Mapping[str, str] = MappingProxyType({})) -> dict[str, Key]:
    """Return all keys by dotted name.

    The arguments of all shipped functions are keys, whichever is chosen. Of networks and of users'
    own functions, only those of the chosen one are.

    Args:
        names: what a configuration chooses, by the keys of `TABLES`; others have their defaults.

    Raises:
        UserError: there is no such network, or an argument has the name of another key.
    """
    found = {
        name: key._replace(names=TABLES.get(name, key.names)) for name, key in DECLARED.items()
    }
    for name in TABLES:
        group = name.rpartition(".")[0]
        for entry, function in _entries(name, names.get(name, DECLARED[name].default)).items():
            for argument, key in arguments(function).items():
                if argument not in SUPPLIED.get(name, ()):
                    _add(found, f"{group}.{argument}".removeprefix("."), key, entry)
    return found


def _entries(name: str, chosen: str) -> dict[str, Callable]:
    table = TABLES[name]
    if name == "model.name":
        if chosen not in table:
            raise UserError(f"{unknown_name(f'config.{name}', chosen, table)}; {OWN}")
        if not inspect.isclass(table[chosen]) and hasattr(table[chosen], "apply"):
            raise UserError(
                f"MODELS['{chosen}'] is a network; put its class there, without parentheses"
            )
        return {chosen: table[chosen]}
    return {
        entry: function
        for entry, function in table.items()
        if entry == chosen or not defined_by_user(function)
    }


def _add(found: dict[str, Key], name: str, key: Key, entry: str) -> None:
    known = found.setdefault(name, key)
    if name in DECLARED or known.default != key.default:
        raise UserError(f"'{entry}': config.{name} is another key already; rename the argument")
    found[name] = known._replace(users=(*known.users, entry), meaning=known.meaning or key.meaning)


DECLARED: dict[str, Key] = {
    "name": Key("cifar10", "name of the run's folder, `runs/NAME`"),
    "seed": Key(0, "seed of parameters, data order, t, noise, dropout and flips", 0, LARGEST),
    "parallel": Key(
        "jit",
        "`jit`; `fsdp` splits parameters and optimiser over the devices; `pmap` works in one "
        "process only",
        names=MODES,
    ),
    "profile": Key("", "steps to trace with JAX's profiler into `RUN/profile`, as in `100:110`"),
    "data.name": Key(
        "cifar10", "`digits`, `image_folder`, `arrays`, or any image data set of TFDS"
    ),
    "data.dir": Key(
        "", "folder of the images or arrays, or TFDS's data folder; empty for TFDS's default"
    ),
    "data.split": Key(
        "train", "split to train on, or a part of it: `train[:90%]`, `train[1000:2000]`"
    ),
    "data.holdout": Key(
        0.0,
        "share of the images to hold out as the split `test`, for data without such a split",
        0.0,
        0.9,
    ),
    "data.balance": Key(False, "train on all classes equally often, however many images each has"),
    "data.changed": Key(
        "refuse",
        "what to do on resuming when the images have changed: `refuse` stops, `allow` continues "
        "with the new ones",
        names=("refuse", "allow"),
    ),
    "data.image_size": Key(
        0, "crop to a square and resize to this side; 0 keeps the size", 0, 8192
    ),
    "data.channels": Key(3, "1 for grey, 3 for colour; 0 keeps what is stored"),
    "data.background": Key(
        "white",
        "colour that transparent images are put on, by name or as `#rrggbb`; empty ignores "
        "transparency",
    ),
    "data.exif": Key(True, "turn photographs upright by their EXIF orientation"),
    "data.flip": Key(True, "mirror images at random"),
    "data.stream": Key(
        False, "read images during training, for data larger than memory; the order is the same"
    ),
    "data.workers": Key(0, "processes that read with `data.stream`; 0 reads in threads", 0, 256),
    "schedule.name": Key("linear", "noise schedule"),
    "schedule.steps": Key(1000, "number of noise levels, T", 1, 10**6),
    "schedule.zero_terminal": Key(
        False,
        "rescale the schedule so that its last step is pure noise (Lin et al. 2023); needs "
        "`prediction` `v` or `x0`",
    ),
    "prediction": Key("eps", "what the network predicts"),
    "variance": Key(
        "fixed_large",
        "variance of the reverse step; `learned_range` lies between the two fixed ones",
    ),
    "decoder": Key(
        "first_noise",
        "variance of the step onto the data: 1 - alpha_bar of the first step; `clipped` as in "
        "DDPM's code, `clipped_range` as in Improved DDPM's, `unit` for `learned_log_variance`",
    ),
    "loss": Key(
        "weighted",
        "`weighted` squared error; `bound`, the bound in bits/dim; `hybrid`, the first plus 0.001 "
        "of the second, for a learned variance",
    ),
    "weight": Key("simple", "weight of the squared error"),
    "timesteps": Key(
        "stratified",
        "how t is drawn; `importance` draws it in proportion to the root of its mean squared loss, "
        "`loss_second_moment` too, exactly as in Improved DDPM's code",
    ),
    "model.name": Key("unet", "the network; the other keys of this group are its fields"),
    "optimizer.learning_rate": Key(2e-4, "largest learning rate", 0.0),
    "optimizer.warmup_steps": Key(5000, "steps of the linear warm-up", 0, LARGEST),
    "optimizer.shorten_warmup": Key(
        True, "cut the warm-up to a tenth of the run if it would otherwise last for the whole run"
    ),
    "optimizer.decay": Key(
        "constant", "after the warm-up: no decay, or a cosine to 0 at `train.steps`"
    ),
    "optimizer.b1": Key(0.9, "Adam's decay of the mean gradient", 0.0, 0.999999),
    "optimizer.b2": Key(0.999, "Adam's decay of the mean squared gradient", 0.0, 0.9999999),
    "optimizer.eps": Key(1e-8, "Adam's epsilon", 0.0),
    "optimizer.weight_decay": Key(0.0, "decoupled weight decay, as in AdamW", 0.0),
    "optimizer.clip_norm": Key(1.0, "largest global gradient norm; 0 does not clip", 0.0),
    "ema.decay": Key(0.9999, "decay of the averaged parameters", 0.0, 1.0),
    "ema.warmup": Key(True, "limit that decay to (1 + n)/(10 + n) after n steps"),
    "train.steps": Key(800_000, "length of the run", 1, LARGEST),
    "train.minutes": Key(
        0.0,
        "train for this long instead: `train.steps` and all that depends on it are scaled to the "
        "steps that fit; 0 switches it off",
        0.0,
        10**6,
    ),
    "train.batch_size": Key(128, "images of a batch, over all devices", 1, 10**6),
    "train.log_every": Key(100, "steps between logged metrics; 0 logs the first and last step", 0),
    "train.save_every": Key(5000, "steps between checkpoints; 0 saves the last step only", 0),
    "train.sample_every": Key(5000, "steps between grids of samples; 0 draws none", 0),
    "train.keep": Key(3, "newest checkpoints to keep", 1),
    "train.keep_every": Key(0, "also keep every step that is a multiple of this; 0 is none", 0),
    "train.keep_best": Key(
        0, "also keep this many checkpoints with the lowest mean loss since the save before", 0
    ),
    "train.accumulate": Key(
        1, "split the batch into this many pieces, computed in turn: less memory", 1
    ),
    "train.max_skipped": Key(
        20, "stop after this many consecutive updates whose loss or gradient was not finite", 1
    ),
    "train.label_dropout": Key(
        0.0, "how often a class is left out in training, for guidance", 0.0, 0.999
    ),
    "sample.num": Key(64, "images in a grid during training", 1, 10**6),
    "sample.batch_size": Key(
        0,
        "most images at once; 0 means up to 256 per device, 32 per CPU core. `evaluate.py` takes "
        "exactly this many; 0 means 64",
        0,
        10**6,
    ),
    "sample.steps": Key(0, "sampling steps, at most T; 0 is all T", 0),
    "sample.clip": Key(True, "clip predicted images to [-1, 1]"),
    "sample.sampler": Key("ancestral", "sampling method"),
    "sample.grid": Key("uniform", "spacing of the sampling steps in t, log-SNR or Karras's rho"),
    "sample.guidance": Key(
        1.0,
        "classifier-free guidance: 1 is off, larger values emphasise the class, negative ones "
        "avoid it",
        -1000.0,
        1000.0,
    ),
    "sample.guidance_interval": Key(
        (0.0, 1.0),
        "guidance acts while t / (T - 1) lies between these two numbers",
        kind=tuple[float, ...],
    ),
    "sample.jump": Key(10, "for inpainting: moves in a group that is repeated", 1, 10**6),
    "sample.repeats": Key(5, "for inpainting: how often each group is taken", 1, 10**4),
}
