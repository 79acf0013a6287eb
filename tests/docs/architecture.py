"""What the code of the repository looks like: imports, sizes and names, as lists of violations of the house rules.

`python -m tests.docs.architecture` prints every violation. With `--update` it writes them as the exceptions that
`test_architecture.py` allows for now; the list may only get shorter.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import memstore

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "memstore"
MODULES = sorted(PACKAGE.rglob("*.py"))
EXCEPTIONS = Path(__file__).parent / "data" / "architecture.json"

MODULE_LINES = 400
FUNCTION_LINES = 60
TOP_MODULES = 10

MIRRORS = {
    "api": set(),
    "assemblies": {"assemblies", "repository"},
    "cli": {"cli", "importers"},
    "database": {"database", "schema", "maintenance", "concurrency", "config"},
    "forgetting": {"forgetting", "repository"},
    "history": {"history", "repository"},
    "index": {"index", "sync", "vectors", "repository"},
    "search": {"search", "filters", "repository", "schema"},
    "visualize": {"visualize"},
}
"""The packages whose internals the tests of a folder may import: the package of its name, and its parts elsewhere.

Tests in other folders may import anything.
"""
PUBLIC = {"testing", "models"}

OLD_NAMES = {
    *("Alike", "Line", "Place", "Turn", "_took", "Driver", "Tender", "GraphedIndex", "Case", "Noun"),
    *("Was", "Moment", "Author", "Kin", "Formed", "Planned", "Trashed", "Repair", "Verification", "Plan", "Gain"),
    *("Near", "breathe", "slices", "telling", "Outcome", "odd", "misled", "as_written", "_bury", "set_aside"),
    *("bring_back", "Activation", "UndoError", "UnmergeError", "acting", "plan_prune", "tail", "dead", "unfit"),
    *("tooth", "Tooth", "teeth", "TEETH", "hostile", "owed", "spoil", "spoiled"),
}
"""Identifiers that were replaced, whatever they name."""
PARTICIPLES = {
    *("found", "told", "held", "wanted", "asked", "chosen", "gone", "fresh", "own", "some", "each", "known", "seen"),
    *("standing", "shown", "near", "kept", "left", "made", "given", "settled", "taken", "apart", "whole", "came"),
    "went",
}
"""Words that say nothing of what a variable is."""
OLD_API = re.compile(
    r"memstore\.acting|\bActivation\(|activate=|\bbelow=|assemblies\.of\(|\.merged\(|\.propose\(|assemblies\.form\(|"
    r"\bplan_prune\b|assemblies\.prune\(|memstore\.restore\(|\bUndoError\b|\bUnmergeError\b|memories\.restore\(|"
    r"store\.(?:plan_)?forget\(|\bTender\b|\bNoun\b"
)
"""Public names that were replaced, in documentation."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- imports


def package_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, late: bool = True) -> Iterator[str]:
    """The names that a file imports from memstore and elsewhere, in functions only if *late*."""
    for node in ast.walk(tree(path)) if late else _module_level(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or PACKAGE not in path.parents, f"{path}: relative import"
            if node.level == 0:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_level(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _module_level(child)


def rows() -> dict[str, int]:
    """Each package of the table in CONTRIBUTING.md, with the number of its row."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| packages | own |\n| -- | -- |\n")[1].split("\n\n")[0]
    return {
        package: number
        for number, line in enumerate(table.splitlines())
        for package in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def layer_violations() -> Iterator[str]:
    """Imports of a package in the same row of the table, or in a row below; the first row is free."""
    table = rows()
    for module in MODULES:
        if module.parent == PACKAGE and module.name == "__init__.py":
            continue
        importer = package_of(module)
        for name in sorted(set(imports(module))):
            parts = name.split(".")
            if parts[0] != "memstore" or len(parts) == 1 or parts[1] not in table:
                continue
            imported = parts[1]
            if imported != importer and not table[imported] < table[importer] and table[importer] != 0:
                yield f"{relative(module)}: {name}"


def module_cycles() -> Iterator[str]:
    """A cycle of imports between modules, as they are imported at the start of the process."""
    names = {".".join(m.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): m for m in MODULES}
    graph: dict[str, set[str]] = {}
    for name, module in names.items():
        graph[name] = set()
        for imported in imports(module, late=False):
            target = imported if imported in names else imported.rpartition(".")[0]
            if target in names and target not in {name, "memstore"}:
                graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " -> ".join(error.args[1])


def internal_imports() -> Iterator[str]:
    """Imports of memstore's internals by tests of another folder than the one that mirrors them."""
    for folder, mirrored in MIRRORS.items():
        for path in sorted((ROOT / "tests" / folder).rglob("*.py")):
            for name in sorted(
                {".".join(name.split(".")[:2]) for name in imports(path) if name.startswith("memstore.")}
            ):
                part = name.split(".")[1]
                internal = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
                if internal and part not in mirrored | PUBLIC:
                    yield f"{relative(path)}: {name}"


# -- sizes

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@cache
def code_lines(path: Path) -> set[int]:
    """The numbers of the lines with code: no docstring, comment or blank line."""
    text = path.read_text(encoding="utf-8")
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree(path)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                lines -= set(range(statement.lineno, statement.end_lineno + 1))
    return lines


def sizes() -> Iterator[str]:
    """Modules and functions with too many lines of code."""
    for module in MODULES:
        lines = code_lines(module)
        if len(lines) > MODULE_LINES:
            yield relative(module)
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = sum(node.lineno <= line <= node.end_lineno for line in lines)
                if length > FUNCTION_LINES:
                    yield f"{relative(module)}: {node.name}"


# -- names


def identifiers(path: Path) -> Iterator[str]:
    """Every name that a file gives to something: classes, functions, parameters, variables, aliases."""
    for node in ast.walk(tree(path)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def old_names(path: Path) -> Counter[str]:
    """The forbidden names in a Python or Markdown file."""
    if path.suffix == ".md":
        return Counter(OLD_API.findall(path.read_text(encoding="utf-8")))
    return Counter(name for name in identifiers(path) if name in OLD_NAMES or name.lstrip("_") in PARTICIPLES)


def named_files() -> list[Path]:
    """The files whose names are checked."""
    folders = ("memstore", "tests", "benchmarks", "examples")
    modules = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*modules, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def undocumented() -> Iterator[str]:
    """Exported names that no page of the documentation mentions."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    yield from (name for name in memstore.__all__ if not re.search(rf"\b{name}\b", text))


def violations() -> dict[str, object]:
    """All there are, in the form of the exceptions."""
    return {
        "layers": list(layer_violations()),
        "cycles": list(module_cycles()),
        "internals": list(internal_imports()),
        "sizes": list(sizes()),
        "undocumented": list(undocumented()),
        "names": {relative(path): count for path in named_files() if (count := old_names(path).total())},
    }


if __name__ == "__main__":
    if "--update" in sys.argv:
        EXCEPTIONS.write_text(json.dumps(violations(), indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(violations(), indent=1))  # noqa: T201 - a command
        for path in named_files():
            if names := old_names(path):
                print(f"{relative(path)}: {', '.join(f'{name} {count}' for name, count in names.most_common())}")  # noqa: T201
