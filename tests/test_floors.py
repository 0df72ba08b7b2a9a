"""The house: a file imports only from floors below its own, so data flows one way."""

import ast
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "diffusion_jax"

# From the ground up; names in one row share a floor and may import from each other's package only
# within the same folder.
FLOORS = [
    {"errors", "start"},
    {"files", "paths"},
    {"core", "devices"},
    {"truth", "samplers", "models", "data", "visual"},
    {"checkpoints", "processes"},
    {"training"},
    {"evaluation", "interop"},
    {"configuration"},
    {"build"},
    {"certification"},
    {"run"},
    {"command_line"},
    {"commands"},
    {"__main__"},
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

# Libraries that only one room may know.
ROOMS = {
    "orbax": {"checkpoints/storage.py"},
    "tensorboardX": {"training/report.py"},
    "flax": {"models"},
    "tensorflow_datasets": {"data"},
    "grain": {"data"},
    "sklearn": {"data", "evaluation/frechet.py"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "diffusion_jax" or len(parts) < 2 or parts[1] == "__version__":
            continue
        other = parts[1]
        assert other == own or FLOOR[other] < FLOOR[own], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path):
    where = str(path.relative_to(PACKAGE))
    for name in imports(path):
        for room_of in [ROOMS.get(name.split(".")[0])]:
            if room_of is not None:
                assert any(where.startswith(allowed) for allowed in room_of), f"{where}: {name}"


def test_core_knows_only_jax_and_numpy():
    allowed = {"jax", "numpy", "math", "typing", "dataclasses", "collections", "enum"}
    allowed |= {"functools", "inspect"}
    for path in FILES:
        if room(path) == "core":
            outside = {name.split(".")[0] for name in imports(path)} - {"diffusion_jax"}
            assert outside <= allowed, path.name


def test_a_wheel_holds_every_room_and_the_configurations():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    rooms = {f"diffusion_jax.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    packed = set(project["tool"]["setuptools"]["packages"])
    assert packed == {"diffusion_jax", "diffusion_jax.configs", *rooms}


BENCHMARKS = sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", [*FILES, *BENCHMARKS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_only_commands_import_commands(path):
    if room_of(path) not in ("commands", "__main__"):
        assert not [name for name in imports(path) if name.startswith("diffusion_jax.commands")]


def room_of(path: Path) -> str:
    return room(path) if path.is_relative_to(PACKAGE) else "benchmarks"
