"""Would the tests notice a wrong formula? One change at a time in a copy of the project.

python -m benchmarks.studies.mutants [--package core] [--module bound] [--per_function 1] [--out x]

A mutant has one sign, factor, number or comparison of a function changed. The test files nearest
to its module run; a mutant that they do not notice is a survivor. Those in `EQUIVALENT` change
nothing that can be observed.
"""

import ast
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import records
from diffusion_jax.command_line import named, positive, run
from diffusion_jax.errors import UserError

PAIRS = ((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Lt, ast.GtE), (ast.Gt, ast.LtE))
SWAPS: dict[type, type] = {ast.Eq: ast.NotEq, ast.USub: ast.UAdd}
SWAPS |= {old: new for pair in PAIRS for old, new in (pair, pair[::-1])}
NEAREST = 5  # test files that a mutant must survive
# Minutes each; they run only for a module that no other file imports.
SLOW = {"devices", "fuzz", "models", "recompute", "samplers", "steering", "training"}
TIMEOUT = 600  # seconds; a mutant that hangs has been noticed

# Changed lines that change nothing that can be observed, and why.
SAME_SIZE = "images of a batch have one size, and JAX takes the last for an index past the end"
EQUIVALENT = {
    "posterior_var = np.where(reverse.moves.s < 0, 2.0, reverse.moves.posterior_var)": (
        "the step onto the data has no diffusion term; any positive number keeps the log finite"
    ),
    "size = x[1].size": SAME_SIZE,
    "meaning, dims = (model.meaning, x0[1].size)": SAME_SIZE,
    "begin = jnp.zeros(jax.eval_shape(lambda: slope(x, 1)[1]).shape, x.dtype)": (
        "only its shape is used, the same on every row"
    ),
    "return (p.mean - jnp.sqrt(p.var) * image_normal(fold(keys, t), x0.shape), None)": (
        "normal noise is symmetric, and no other draw shares its key"
    ),
    "t = jnp.minimum((numbers(key, index, batch) * steps).astype(jnp.int32), steps + 1)": (
        "a float32 below 1 times T never rounds up to T; the minimum is a guard"
    ),
}


class Mutant(NamedTuple):
    """A module's text with one changed line; its name says where and which."""

    name: str
    changed: str
    text: str


def places(function: ast.FunctionDef) -> list[ast.AST]:
    """Find the operations and numbers that can be changed, inner functions' aside."""
    found, waiting = [], list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef):
            continue
        if _change(copy.deepcopy(node)):
            found.append(node)
        waiting += ast.iter_child_nodes(node)
    return found


def _change(node: ast.AST) -> bool:
    """Change a node in place; False if nothing in it can be."""
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        if isinstance(node.value, bool):
            return False
        node.value += 1
    else:
        return False
    return True


def mutants(module: Path, per_function: int) -> Iterator[Mutant]:
    """Make a few mutants of every function and method, the same ones every time."""
    tree = ast.parse(module.read_text())
    before = ast.unparse(tree).splitlines()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for number, function in enumerate(functions):
        count = len(places(function))
        chance = random.Random(f"{module.name} {function.name}")
        for index in chance.sample(range(count), min(per_function, count)):
            whole = copy.deepcopy(tree)
            twins = [node for node in ast.walk(whole) if isinstance(node, ast.FunctionDef)]
            _change(places(twins[number])[index])
            text = ast.unparse(whole)
            pairs = zip(before, text.splitlines(), strict=True)
            old, new = next((a.strip(), b.strip()) for a, b in pairs if a != b)
            yield Mutant(f"{module.stem}.{function.name}: {old}  ->  {new}", new, text)


def tests_of(module: str, package: str) -> list[str]:
    """Name the test files nearest to a module: its own, and quick ones that import it."""
    imported = re.compile(rf"diffusion_jax\.{package}(\.{module} import| import .*\b{module}\b)")
    own, quick, slow = [], [], []
    for path in sorted((records.ROOT / "tests").glob("test_*.py")):
        subject = path.stem.removeprefix("test_")
        if subject == module:
            own.append(f"tests/{path.name}")
        elif imported.search(path.read_text()):
            (slow if subject in SLOW else quick).append(f"tests/{path.name}")
    return (own + quick)[:NEAREST] or slow


def failure(root: Path, tests: list[str]) -> str | None:
    """Run tests in a copy of the project up to the first that fails; its name, None if all pass."""
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",  # the bytecode of one mutant must not serve another
        "JAX_COMPILATION_CACHE_DIR": str(records.ROOT / ".cache" / "mutants"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--numprocesses=0", *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return "timed out"
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        raise SystemExit(f"pytest could not run the tests:\n{done.stdout}{done.stderr}")
    return failed[1]


def main(arguments: list[str]) -> None:
    """Try every mutant and list the survivors."""
    parser = records.parser("studies.mutants", __doc__)
    parser.add_argument("--package", type=named, default="core", help="a folder of diffusion_jax")
    parser.add_argument("--module", type=named, default="*", help="only this module of it")
    parser.add_argument("--per_function", type=positive, default=1)
    given = parser.parse_args(arguments)
    modules = sorted((records.ROOT / "diffusion_jax" / given.package).glob(f"{given.module}.py"))
    if not modules:
        raise UserError(f"no module {given.module}.py in diffusion_jax/{given.package}")
    tests = {module: tests_of(module.stem, given.package) for module in modules}
    survivors, count = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        ignored = shutil.ignore_patterns(".venv*", ".git", "runs", ".cache", "__pycache__")
        shutil.copytree(records.ROOT, root, ignore=ignored)
        for name in sorted({name for names in tests.values() for name in names}):
            if failed := failure(root, [name]):
                raise SystemExit(f"{failed} fails without a mutant; fix it first")
        for module in modules:
            path = root / module.relative_to(records.ROOT)
            for mutant in mutants(module, given.per_function):
                path.write_text(mutant.text)
                failed = failure(root, tests[module]) if tests[module] else None
                path.write_text(module.read_text())
                count += 1
                print(f"{failed or 'SURVIVED'}  {mutant.name}", flush=True)
                if failed is None:
                    survivors[mutant.name] = EQUIVALENT.get(mutant.changed, "a gap")
    result = {"mutants": count, "killed": count - len(survivors), "survivors": survivors}
    records.save(given.out, result)
    if gaps := [name for name, reason in survivors.items() if reason == "a gap"]:
        raise SystemExit("\n".join(["Gaps in the tests:", *gaps]))


if __name__ == "__main__":
    run(main)
