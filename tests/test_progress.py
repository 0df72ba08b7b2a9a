"""What progress says: the speed early on, and whole shares of the work."""

import pytest

from diffusion_jax.configuration.change import MEANT
from diffusion_jax.configuration.keys import keys
from diffusion_jax.run import progress
from diffusion_jax.run.progress import ImageProgress, TrainingProgress


def test_the_speed_is_said_once_however_rarely_metrics_are_logged(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    shown = TrainingProgress(1000, 0)
    for step in range(1, 41):
        now[0] += 1.0
        shown.advance(step)
    shown.close()
    assert capsys.readouterr().out == "step 10/1000: 1 s per step, 16:30 left\n"


def test_logged_speeds_make_it_needless(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    shown = TrainingProgress(1000, 0)
    for step in range(1, 41):
        now[0] += 1.0
        shown.advance(step, **({"loss": 1.0, "images_per_second": 8.0} if step == 5 else {}))
    shown.close()
    assert capsys.readouterr().out == "step 5/1000: loss 1, 8 images/s, 16:35 left\n"


def test_shares_of_the_work_are_whole(capsys):
    shown = ImageProgress(3, "sampled")
    for done in (0.3, 0.8, 0.9, 1.6, 2.99, 3.0):
        shown(done)
    shown.close()
    assert capsys.readouterr().out.splitlines() == [
        "sampled 26% of 3 images",
        "sampled 53% of 3 images",
        "sampled 99% of 3 images",
        "sampled 100% of 3 images",
    ]


@pytest.mark.parametrize("word", MEANT)
def test_what_others_call_a_key_is_one_of_ours(word):
    assert MEANT[word] in keys()


def test_names_of_folders_cannot_send_terminal_codes(capsys):
    progress.say("classes: a\x1b[31mred\nnext: caf\udce9")
    progress.warn("no images of a\x1b[31mred")
    out, err = capsys.readouterr()
    assert out == "classes: a\\x1b[31mred\nnext: caf\\udce9\n"
    assert err == "warning: no images of a\\x1b[31mred\n"
