"""Print every message that the library can show, with example arguments: `python -m tests.support.messages [FILE ...]`.

The messages are read from the syntax trees of `memstore/`: the text of every error, of every call of a function that
puts its argument into an error, of findings, log records and lines of the command line. Placeholders are filled by
their names. Strings of several words that are none of these, nor SQL nor docstrings, follow as `text`.
"""

import ast
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "memstore"

EXAMPLES = {
    **dict.fromkeys(("id", "name", "key", "value", "tag", "word", "text", "member", "field", "shown"), "x"),
    **dict.fromkeys(("path", "file", "target", "source", "backup", "destination"), "store.db"),
    **dict.fromkeys(("noun", "kind"), "memory"),
    **dict.fromkeys(("command", "verb"), "search"),
    **dict.fromkeys(("error", "reason", "why", "detail"), "disk I/O error"),
    **dict.fromkeys(("least", "low", "min", "lowest", "first"), "1"),
    **dict.fromkeys(("most", "high", "max", "highest"), "1000"),
    "metric": "cosine",
    "namespace": "('a', 'b')",
    "table": "memory",
    "column": "content",
    "__name__": "int",
    "version": "0.1.0",
    "revision": "0007",
    "ids": "'x', 'y'",
}
NUMBERS = re.compile(
    r"count|number|size|dimension|limit|seconds|timeout|bytes|total|done|rows|line|position|last|seq|"
    r"pk|page|n|i|at|len|expected|got|length|depth|pid"
)
MOST_VARIANTS = 6
SHOWN_AS_IS = {"short_repr", "repr", "str", "fspath", "clean", "escape", "snippet"}
OUTPUT = {"print_line", "print_note", "refuse", "warning", "info", "error", "exception", "Finding", "BadParameter"}
SQL = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|PRAGMA|WITH|ALTER|REPLACE|BEGIN|COMMIT|FROM|WHERE)\b")


@dataclass(frozen=True)
class Message:
    """One message: where it is made, what shows it, and its text."""

    path: Path
    line: int
    shown_by: str
    text: str


@dataclass
class Helper:
    """A function that puts its parameters into a message."""

    parameters: list[str]
    templates: list[tuple[ast.expr, str]] = field(default_factory=list)


def example(node: ast.expr) -> str:
    """The example value of a placeholder, by the last name in it."""
    match node:
        case ast.Call(func=ast.Attribute(attr="join")):
            return "a, b"
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in SHOWN_AS_IS | {"type", "sorted"}:
            return example(first)
        case ast.Call(func=function):
            return example(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            for word in (name, name.rpartition("_")[2]):
                if word in EXAMPLES:
                    return EXAMPLES[word]
                if NUMBERS.fullmatch(word):
                    return "3"
            return "1000" if name.isupper() else name.strip("_")
        case ast.Subscript(value=value) | ast.BinOp(left=value) | ast.Starred(value=value) | ast.Await(value=value):
            return example(value)
        case ast.Constant(value=value):
            return str(value)
    return "x"


class Scope:
    """Renders expressions of one function; names stand for the texts that are assigned to them there."""

    constants: ClassVar[dict[str, list[str]]] = {}
    """The texts of the package's module-level names."""

    def __init__(self, function: ast.AST, texts: Mapping[str, list[str]] | None = None) -> None:
        self._texts = {**self.constants, **(texts or {})}
        self._assigned: dict[str, list[ast.expr]] = {}
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self._assigned.setdefault(name, []).append(value)

    def render(self, node: ast.expr, *, depth: int = 0) -> list[str]:
        """Texts that *node* may be; none if it is no text."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._product([self._part(part, depth) for part in parts])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                sides = [self.render(left, depth=depth), self.render(right, depth=depth)]
                if not any(sides):
                    return []
                operands = zip(sides, (left, right), strict=True)
                return self._product([side or [example(operand)] for side, operand in operands])
            case ast.IfExp(body=body, orelse=orelse):
                return [*self.render(body, depth=depth), *self.render(orelse, depth=depth)]
            case ast.BoolOp(values=values):
                return [text for value in values for text in self.render(value, depth=depth)]
            case ast.Name(id=name) if name in self._texts:
                return self._texts[name]
            case ast.Name(id=name) if name in self._assigned and depth < 3:
                return [t for value in self._assigned[name] for t in self.render(value, depth=depth + 1)]
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in SHOWN_AS_IS:
                return self.render(first, depth=depth)
        return []

    def _part(self, part: ast.expr, depth: int) -> list[str]:
        if not isinstance(part, ast.FormattedValue):
            return self.render(part)
        texts = self.render(part.value, depth=depth + 1) or [example(part.value)]
        quoted = part.conversion == ord("r") or (
            isinstance(part.value, ast.Call) and getattr(part.value.func, "id", "") in {"short_repr", "repr"}
        )
        return [f"'{text}'" if quoted and text != "3" else text for text in texts]

    @staticmethod
    def _product(parts: list[list[str]]) -> list[str]:
        combinations = itertools.product(*(part or [""] for part in parts))
        return ["".join(texts) for texts in itertools.islice(combinations, MOST_VARIANTS)]


def filled(text: str) -> str:
    """The format string *text* of a log record or of `%`, with examples."""
    return re.sub(r"%[.\d]*([sdrfi])", lambda match: "x" if match[1] in "sr" else "3", text)


def name_of(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def shows(name: str) -> bool:
    """Whether a call of *name* makes an error, a finding or a line of output."""
    return name.endswith("Error") or name in OUTPUT


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def helpers(trees: Mapping[Path, ast.Module]) -> dict[str, Helper]:
    """Functions of the package that put a parameter into a message, by name."""
    helper_functions: dict[str, Helper] = {}
    for tree in trees.values():
        for function in functions(tree):
            parameters = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
            helper = Helper([name for name in parameters if name not in {"self", "cls"}])
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and shows(name_of(call)):
                    for value in arguments(call):
                        names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
                        if names & set(helper.parameters) and isinstance(value, ast.JoinedStr | ast.BinOp | ast.Name):
                            helper.templates.append((value, name_of(call)))
            if helper.templates and not shows(function.name):
                helper_functions[function.name] = helper
    return helper_functions


def messages() -> Iterator[Message]:
    """Every message, file by file."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    for tree in trees.values():
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if texts := Scope(node).render(value):
                    Scope.constants[name] = texts
    helper_functions = helpers(trees)
    for path, tree in trees.items():
        yield from _of_file(path, tree, helper_functions)


def _of_file(path: Path, tree: ast.Module, helper_functions: Mapping[str, Helper]) -> Iterator[Message]:
    used: set[int] = set()
    unique: set[tuple[int, str]] = set()
    scopes: dict[int, Scope] = {}
    for node in (tree, *functions(tree)):  # an inner function comes after the one around it
        scopes |= dict.fromkeys((id(child) for child in ast.walk(node) if isinstance(child, ast.Call)), Scope(node))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not (shows(name_of(call)) or name_of(call) in helper_functions):
            continue
        used.update(id(child) for child in ast.walk(call))
        for shown_by, text in _of_call(call, scopes[id(call)], helper_functions.get(name_of(call))):
            if (call.lineno, text) not in unique:
                unique.add((call.lineno, text))
                yield Message(path, call.lineno, shown_by, text)
    yield from _other_texts(path, tree, used)


def _of_call(call: ast.Call, scope: Scope, helper: Helper | None) -> Iterator[tuple[str, str]]:
    if helper is None or shows(name_of(call)):
        for value in arguments(call):
            yield from ((name_of(call), filled(text)) for text in scope.render(value) if " " in text)
        return
    values = dict(zip(helper.parameters, call.args, strict=False))
    values |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    texts = {name: rendered for name, value in values.items() if (rendered := scope.render(value))}
    if texts:
        for template, shown_by in helper.templates:
            for text in Scope(ast.Module([], []), texts).render(template):
                if " " in text:
                    yield shown_by, text


def _other_texts(path: Path, tree: ast.Module, used: set[int]) -> Iterator[Message]:
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        for statement in (getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else [])
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in used | docstrings | parts:
            for text in Scope(ast.Module([], [])).render(node):
                if len(text.split()) >= 4 and not SQL.match(text) and "\n" not in text.strip():
                    yield Message(path, node.lineno, "text", text)


def main(files: list[str]) -> None:
    """Print the messages of *files*, or of all files, grouped by file."""
    paths = {Path(file).resolve() for file in files}
    for path, group in itertools.groupby(messages(), key=lambda message: message.path):
        if paths and not any(path == file or file in path.parents for file in paths):
            continue
        print(f"\n{path.relative_to(ROOT)}")  # noqa: T201 - a command
        for message in sorted(group, key=lambda message: message.line):
            print(f"  {message.line:4} {message.shown_by}: {message.text}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
