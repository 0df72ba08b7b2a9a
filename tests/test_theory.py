"""docs/theory.md names functions and tests: they exist, and no row is missing."""

import importlib.util
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
THEORY = (TESTS.parent / "docs" / "theory.md").read_text()
NAMES = sorted(set(re.findall(r"`([a-z_]+\.[A-Za-z_0-9]+)`", THEORY)))
LAWS = sorted(set(re.findall(r"`(test_[a-z_0-9]+)`", THEORY)))
ROWS = [f"F{n}" for n in range(1, 8)]
ROWS += [f"R{n}" for n in range(1, 7)] + [f"M{n}" for n in range(1, 16)]
ROWS += [f"S{n}" for n in range(1, 5)]


@pytest.mark.parametrize("name", NAMES)
def test_functions_exist(name):
    module, attribute = name.split(".")
    places = [f"diffusion_jax.{room}.{module}" for room in ("core", "truth", "samplers")]
    place = next(filter(importlib.util.find_spec, places))
    found = getattr(importlib.import_module(place), attribute)
    assert isinstance(found, dict) or found.__doc__


def test_laws_exist():
    written = {
        name
        for path in TESTS.glob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(LAWS) > 50
    assert set(LAWS) <= written


def test_every_row_has_a_function_and_a_law():
    rows = {
        line.split("|")[1].strip(): line for line in THEORY.splitlines() if line.startswith("| ")
    }
    for row in ROWS:
        _, _, _, function, law, _ = rows[row].split("|")
        assert "`" in function, row
        assert "`test_" in law, row
