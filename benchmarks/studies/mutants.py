"""Change one formula at a time in a copy of the project and see whether the tests notice.

python -m benchmarks.studies.mutants [--package core] [--per_function 1] [--out x.json]

A mutant has one sign, factor, number or comparison of a public function changed. Those tests run
that name the module; a mutant that they do not notice is listed as a survivor.
"""

import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import records
from diffusion_jax.commands.arguments import positive, run

SWAPS: dict[type, type] = {ast.USub: ast.UAdd}
for one, other in ((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Lt, ast.GtE), (ast.Gt, ast.LtE)):
    SWAPS |= {one: other, other: one}


class Mutant(NamedTuple):
    """A module's text with one change, and where that is."""

    module: Path
    function: str
    line: int
    change: str
    text: str


def places(function: ast.FunctionDef) -> list[ast.AST]:
    """Find the operations and numbers of a function that can be changed."""
    return [node for node in ast.walk(function) if _changed(copy.deepcopy(node)) is not None]


def _changed(node: ast.AST) -> str | None:
    """Change a node in place and say how; None if nothing in it can be changed."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        before: Any = node.value
        node.value = before + 1
        return f"{before} -> {node.value}"
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in SWAPS:
        before, node.op = type(node.op).__name__, SWAPS[type(node.op)]()
        return f"{before} -> {type(node.op).__name__}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        before, node.ops[0] = type(node.ops[0]).__name__, SWAPS[type(node.ops[0])]()
        return f"{before} -> {type(node.ops[0]).__name__}"
    return None


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Return the public functions and methods of a module, in a fixed order."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [function for function in found if not function.name.startswith("_")]


def mutants(module: Path, per_function: int) -> Iterator[Mutant]:
    """Make a few mutants of every public function, the same ones every time."""
    tree = ast.parse(module.read_text())
    for position, function in enumerate(functions(tree)):
        count = len(places(function))
        rng = random.Random(f"{module.name} {function.name}")
        for index in rng.sample(range(count), min(per_function, count)):
            whole = copy.deepcopy(tree)
            node = places(functions(whole)[position])[index]
            change = _changed(node)
            assert change
            line = getattr(node, "lineno", function.lineno)
            yield Mutant(module, function.name, line, change, ast.unparse(whole))


def tests_of(module: Path, root: Path) -> list[str]:
    """Name the test files that import a module, the one called like it first."""
    name = module.stem
    own = root / "tests" / f"test_{name}.py"
    others = [
        path
        for path in sorted((root / "tests").glob("test_*.py"))
        if path != own and f"{module.parent.name}.{name} import" in path.read_text()
    ]
    return [str(path) for path in ([own] if own.exists() else []) + others]


def killed(mutant: Mutant, root: Path) -> bool:
    """Run the tests on a mutant in a copy of the project; whether they notice."""
    path = root / mutant.module.relative_to(records.ROOT)
    before = path.read_text()
    path.write_text(mutant.text)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--numprocesses=0"]
    try:
        done = subprocess.run(
            [*command, *tests_of(path, root)], cwd=root, capture_output=True, check=False
        )
    finally:
        path.write_text(before)
    return done.returncode != 0


def copied(folder: Path) -> Path:
    """Copy the project, without environments and runs."""
    ignored = shutil.ignore_patterns(".venv*", ".git", "runs", ".cache", "__pycache__")
    return Path(shutil.copytree(records.ROOT, folder / "project", ignore=ignored))


def main(arguments: list[str]) -> None:
    """Try every mutant and list the survivors."""
    parser = records.parser("studies.mutants", __doc__)
    parser.add_argument("--package", default="core", help="a folder of diffusion_jax")
    parser.add_argument("--per_function", type=positive, default=1)
    given = parser.parse_args(arguments)
    modules = sorted((records.ROOT / "diffusion_jax" / given.package).glob("*.py"))
    made = [mutant for module in modules for mutant in mutants(module, given.per_function)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        for mutant in made:
            where = f"{mutant.module.name}:{mutant.line} {mutant.function}: {mutant.change}"
            if not killed(mutant, root):
                survivors.append(where)
            print(f"{'SURVIVED' if where in survivors else 'killed  '} {where}", flush=True)
    noticed = len(made) - len(survivors)
    records.save(given.out, {"mutants": len(made), "killed": noticed, "survivors": survivors})


if __name__ == "__main__":
    run(main)
