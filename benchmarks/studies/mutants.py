"""Would the tests notice a wrong formula? One change at a time in a copy of the project.

python -m benchmarks.studies.mutants [--package core] [--per_function 1] [--out x.json]

A mutant has one sign, factor, number or comparison of a public function changed. Those tests run
that name the module; a mutant that they do not notice is listed as a survivor.
"""

import argparse
import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import records

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.USub: ast.UAdd,
}


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
    """Change a node in place; how, None if nothing in it can be."""
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in SWAPS:
        before, node.op = type(node.op).__name__, SWAPS[type(node.op)]()
        return f"{before} -> {type(node.op).__name__}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        before, node.ops[0] = type(node.ops[0]).__name__, SWAPS[type(node.ops[0])]()
        return f"{before} -> {type(node.ops[0]).__name__}"
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and (not isinstance(node.value, bool))
    ):
        before, node.value = node.value, node.value + 1
        return f"{before} -> {node.value}"
    return None


def mutants(module: Path, per_function: int) -> Iterator[Mutant]:
    """Make a few mutants of every public function and method, the same ones every time."""
    tree = ast.parse(module.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
            continue
        found = places(function)
        chosen = random.Random(f"{module.name} {function.name}").sample(
            range(len(found)), min(per_function, len(found))
        )
        for index in chosen:
            whole = copy.deepcopy(tree)
            twin = next(
                node
                for node in ast.walk(whole)
                if isinstance(node, ast.FunctionDef)
                and (node.name, node.lineno) == (function.name, function.lineno)
            )
            node = places(twin)[index]
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


def main() -> None:
    """Try every mutant and list the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", default="core")
    parser.add_argument("--per_function", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    survivors, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        ignored = shutil.ignore_patterns(".venv*", ".git", "runs", ".cache", "__pycache__")
        shutil.copytree(records.ROOT, root, ignore=ignored)
        for module in sorted((records.ROOT / "diffusion_jax" / given.package).glob("*.py")):
            for mutant in mutants(module, given.per_function):
                count += 1
                noticed = killed(mutant, root)
                where = f"{module.name}:{mutant.line} {mutant.function}: {mutant.change}"
                print(f"{'killed  ' if noticed else 'SURVIVED'} {where}", flush=True)
                survivors += [] if noticed else [where]
    result = {"mutants": count, "killed": count - len(survivors), "survivors": survivors}
    records.save(given.out, result)


if __name__ == "__main__":
    main()
