"""Downloading files: with a deadline, a progress bar and a checksum."""

import hashlib
import http.client
import threading
import urllib.request

from diffusion_jax.errors import UserError

OPEN_SECONDS = 8
STALL_SECONDS = 30
CHUNK_BYTES = 1 << 18


def open_url(url: str):
    """Return the response of a GET request, a context manager; UserError within OPEN_SECONDS."""
    answer = []

    def fetch():
        try:
            answer.append(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except (OSError, http.client.HTTPException) as error:
            answer.append(error)

    # A socket's timeout covers neither the DNS lookup nor the total over several addresses.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(OPEN_SECONDS)
    if not answer:
        raise no_download(url, f"no answer within {OPEN_SECONDS} s")
    if isinstance(answer[0], Exception):
        raise no_download(url, getattr(answer[0], "reason", answer[0])) from answer[0]
    return answer[0]


def download(url: str, sha256: str) -> bytes:
    """Return the content at `url`; UserError if the download fails or the checksum differs."""
    from tqdm import tqdm

    content = bytearray()
    with open_url(url) as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        name = url.rpartition("/")[2]
        with tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None) as bar:
            try:
                while chunk := response.read(CHUNK_BYTES):
                    content += chunk
                    bar.update(len(chunk))
            except (OSError, http.client.HTTPException) as error:
                raise no_download(url, error) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{url} is incomplete or altered ({len(content)} bytes, wrong SHA-256); try again"
        )
    return bytes(content)


def no_download(url: str, reason) -> UserError:
    """Return the error for a file that cannot be downloaded."""
    return UserError(
        f"cannot download {url} ({reason}); check the network, or set --config.data.dir "
        "to a folder that holds the prepared data"
    )
