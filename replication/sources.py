"""The source files behind an entry point, so that Snakemake reruns what an edit can change and nothing else.

Snakemake itself does not follow imports.
"""

import ast
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
# These cannot change a number.
BOOKKEEPING = {f"replication.{name}" for name in ("claim_registry", "config", "files", "provenance")}


def source_files(*modules):
    """Paths, relative to the repository, of `modules` and of all they import from this package and from `own`; sorted.

    Imports inside functions count. Bookkeeping modules do not: their edits cannot change a result.
    """
    found, waiting = set(), [*modules]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name))
    return sorted(str(_path(name).relative_to(ROOT)) for name in found)


@cache
def _imports(module):
    names = set()
    if not _path(module).exists():
        raise SystemExit(f"There is no module {module}: {_path(module).relative_to(ROOT)} does not exist.")
    for node in ast.walk(ast.parse(_path(module).read_text(), _path(module))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names.add(origin)
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return {name for name in names if name.startswith(("replication.", "own.")) and _path(name).exists()} - BOOKKEEPING


def _path(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
