"""Preparing a TFDS data set without TensorFlow, completely or not at all."""

import contextlib
import io
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from diffusion_jax.data.archives import ARCHIVES, Archive, Split
from diffusion_jax.data.download import open_url
from diffusion_jax.errors import UserError


@contextlib.contextmanager
def quiet_tfds():
    """Keep the logs and banners of TFDS and its dependencies off the terminal."""
    from absl import logging as absl_logging

    loggers = [absl_logging.get_absl_logger(), logging.getLogger("urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def prepare_builder(builder, archive: Archive | None = None) -> None:
    """Download the data set of a TFDS builder and write it where the builder looks for it.

    archive: what to download; by default the entry of that name in ARCHIVES. Data sets without one
    are left to TFDS. Raises UserError, and leaves nothing behind, if it fails.
    """
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    archive = archive or ARCHIVES.get(builder.name)
    root = Path(builder.data_dir_root).expanduser()
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, manual_dir=root / "downloads" / "manual"
    )
    with (
        quiet_tfds(),
        own_errors(builder),
        no_trace(Path(builder.data_path)),
        scratch(root) as downloads,
    ):
        if archive:
            hand_over(builder, archive)
        elif builder.url_infos:
            # TFDS itself retries for minutes before it reports that there is no network.
            open_url(next(iter(builder.url_infos))).close()
        builder.download_and_prepare(download_dir=downloads, download_config=config)


def hand_over(builder, archive: Archive) -> None:
    """Make `builder` write the archive's content instead of its own generator's.

    The generators of these data sets import TensorFlow to read files and to encode images; what
    TFDS does with the examples (order, shards, description) does not.
    """
    content = archive.fetch()
    for label, names in content.class_names.items():
        builder.info.features[label].names = names
    with_id = "id" in builder.info.features
    builder._make_download_manager = lambda **_: SimpleNamespace(downloaded_size=0)
    builder._split_generators = lambda _: {
        name: examples(name, split, with_id) for name, split in content.splits.items()
    }


def examples(name: str, split: Split, with_id: bool):
    """Yield TFDS's (key, example) pairs, the image as PNG bytes."""
    from PIL import Image

    for i, pixels in enumerate(split.images):
        png = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(png, "PNG")
        example: dict[str, bytes | int | str] = {"image": png.getvalue()}
        example |= {label: int(values[i]) for label, values in split.labels.items()}
        if with_id:
            example["id"] = f"{name}_{i:05d}"
        yield i, example


@contextlib.contextmanager
def no_trace(folder: Path):
    """Remove `folder` and its parents afterwards, if they did not exist before and are empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def scratch(root: Path):
    """Make a temporary folder in `root`, on the disk where the data will be."""
    root.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="downloads.", dir=root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_errors(builder):
    """Turn any error during preparation into a UserError of one line."""
    failure = f"TFDS data set '{builder.name}' cannot be prepared in {builder.data_dir_root}"
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        package = "TensorFlow" if error.name == "tensorflow" else f"the package '{error.name}'"
        raise UserError(
            f"{failure}: that needs {package}, which is not installed; prepare it elsewhere as "
            "array_record and set --config.data.dir to its folder"
        ) from error
    # The generators of hundreds of data sets run here and may raise anything.
    except Exception as error:
        # Another process may have prepared it meanwhile.
        if not builder.is_prepared():
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"{failure}: {reason}") from error
