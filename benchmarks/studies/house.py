"""Count a package's modules, lines and functions, and names defined more than once.

python -m benchmarks.studies.house [--package diffusion_jax] [--out x.json]
"""

import ast
from collections import defaultdict
from pathlib import Path
from statistics import median

from benchmarks.harness import records
from diffusion_jax.command_line import run


def counted(package: Path) -> dict:
    """Count the lines of files and functions below a folder; `__init__` files are no modules."""
    paths = [path for path in sorted(package.rglob("*.py")) if path.name != "__init__.py"]
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    functions, names = [], defaultdict(list)
    for path in lines:
        tree = ast.parse(path.read_text())
        functions += [
            node.end_lineno - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno
        ]
        for name in public_names(tree):
            names[name].append(str(path.relative_to(package)))
    functions.sort()
    return {
        "modules": len(lines),
        "lines": sum(lines.values()),
        "functions": len(functions),
        "median_lines": median(functions),
        "p90_lines": functions[int(0.9 * len(functions))],
        "longest": functions[-1],
        "files_above_250": [path.name for path, count in lines.items() if count > 250],
        "files_of_45_or_fewer": sum(count <= 45 for count in lines.values()),
        "defined_more_than_once": {n: found for n, found in names.items() if len(found) > 1},
    }


def public_names(tree: ast.Module) -> list[str]:
    """Return the names of a module's functions, classes and constants that others may use."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in found if not name.startswith("_")]


def main(arguments: list[str]) -> None:
    """Count and report."""
    parser = records.parser("studies.house", __doc__)
    parser.add_argument("--package", default="diffusion_jax")
    given = parser.parse_args(arguments)
    records.save(given.out, counted(records.ROOT / given.package))


if __name__ == "__main__":
    run(main)
