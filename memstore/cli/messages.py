"""Messages of the API in the words of the command line: options for arguments, commands for verbs, JSON's types.

The library writes its messages for programs that call it. A test translates all of them, and finds none that still
has a word of the API.
"""

import ast
import re
from collections.abc import Callable
from datetime import datetime

from memstore.cli.namespaces import format_namespace
from memstore.errors import MemstoreError

_PHRASES = {
    "use upsert to replace it, or update to change it": (
        "pass --upsert to replace it, or run `memstore update` to change it"
    ),
    "open it with embedder=, or pass a vector": "pass --embedding",
    "pass embedding=, or embedding=None to remove the old one": (
        "pass --embedding, or --embedding null to remove the old one"
    ),
    "with update(), or None to drop it,": "with `memstore update --embedding`, null to drop it,",
    "use clear() for that": "name the records by a filter that they all match",
    "Give it a criterion, or a filter as where=": "Pass a criterion, or --where",
    "open it with history='full' to start one": "run `memstore history STORE --keep 30d` to start one",
    "an aware datetime, such as datetime.now(UTC)": "a time with its zone, such as 2030-01-31T12:00:00Z",
    "in seconds or as a timedelta": "such as 30d or 12h",
    "seconds or a timedelta": "a duration, such as 30d or 12h",
    "a timedelta of at least one second": "a duration of at least one second",
    "open it without read_only to create one": "create one with `memstore add`, `memstore import` or `memstore demo`",
    "Open it once without read_only to migrate it": "Run `memstore migrate`",
    "open it with dimension= to create one": "create one with `memstore add`, `memstore import` or `memstore demo`",
    "give dimension=, the number of components of an embedding, or an embedder": "pass --dimension or --embedder",
    "call the verb on store.namespace(...), or pass recursive=True": "pass --namespace, or --recursive",
    "Open the store without indexed_metadata, list": "List",
    "or use metric='hyperbolic'": "or pass --metric hyperbolic",
    "leave out boost=": "leave out --boost",
    ", or open it with read_only=True": "",
    "AssemblyBoost(threshold=0.6)": "--threshold 0.6",
    "AssemblyBoost": "--boost",
    ", such as time.isoformat()": "",
    "Map Euclidean vectors with memstore.vectors.into_ball(vectors, curvature)": "Map Euclidean vectors into it first",
    "a list or a tuple": "a list",
    "for another model, open the file without an embedder, and copy it with memstore.importers.reembed": (
        "the guide says how to change to another model"
    ),
    "use erase() of the namespace for that": "pass --all for that",
    "text (str)": "text",
    "a dict": "an object",
    "a mapping of field names to values": "an object",
    "a mapping": "an object",
    "a JSON type (dict, list, str, int, float, bool or None)": "a value of JSON",
}
_COMMANDS = {"unmerge": "assemblies unmerge", "clear": "delete", "get": "show", "restore_backup": "restore"}
_TYPES = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozenset": "a list",
    "dict": "an object",
    "NoneType": "null",
    "bytes": "bytes",
}
_CONSTANTS = {"None": "null", "True": "true", "False": "false"}


_QUOTED = r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
"""A text of the user or of the store, as `repr` writes it. An apostrophe in a word begins none."""


def _translated_quotation(match: re.Match[str]) -> str:
    return match[0]


def _translated_namespace(match: re.Match[str]) -> str:
    path = ast.literal_eval(match["path"])
    return f"{match['before']}namespace {format_namespace(path)}" if path else ""


def _translated_time(match: re.Match[str]) -> str:
    numbers = [int(number) for number in re.findall(r"\d+", match["time"])]
    zone = "Z" if "utc" in match["time"] else ""
    try:
        return datetime(*numbers[:7]).isoformat() + zone  # type: ignore[arg-type]  # noqa: DTZ001 - only for its text
    except (TypeError, ValueError):
        return match[0]


def _translated_argument(match: re.Match[str]) -> str:
    value = match["text"] or match["number"]
    return "--" + match["argument"].replace("_", "-") + (f" {value}" if value else "")


def _translated_verb(match: re.Match[str]) -> str:
    return f"`memstore {_COMMANDS.get(match['verb'], match['verb'].replace('_', '-'))}`"


def _translated_type(match: re.Match[str]) -> str:
    words = _TYPES[match["type"]]
    return f"{match['word']} {words.rpartition(' ')[2] if match['size'] else words}{match['size']}"


_PATTERNS: dict[str, Callable[[re.Match[str]], str]] = {
    rf"(?P<before> (?:in |of )?)namespace (?P<path>\((?:{_QUOTED}|[, ])*\))": _translated_namespace,
    "|".join(map(re.escape, _PHRASES)): lambda match: _PHRASES[match[0]],
    r"datetime\.datetime\((?P<time>(?:[^()]|\([^()]*\))*)\)": _translated_time,
    r"\b(?P<argument>[a-z_]+)=(?:'(?P<text>\w+)'|True\b|(?P<number>\d+(?:\.\d+)?)|None\b)?": _translated_argument,
    _QUOTED: _translated_quotation,
    rf"\b(?P<word>expected|found|found one|got|bytes but) (?P<type>{'|'.join(_TYPES)})\b(?P<size>(?: of \d)?)": (
        _translated_type
    ),
    r"\b(?:an? )?(?P<python>str|int|tuple|dict|NoneType)\b": lambda match: _TYPES[match["python"]],
    r"(?<![`.\w])(?:memstore\.|store\.)?(?P<verb>[a-z_]+)\(\)": _translated_verb,
    r"\b(?:None|True|False)\b": lambda match: _CONSTANTS[match[0]],
}
_ANY_PATTERN = re.compile("|".join(f"(?P<p{number}>{pattern})" for number, pattern in enumerate(_PATTERNS)))


def in_words_of_commands(error: MemstoreError) -> str:
    """The message of *error* and its notes, as one line of sentences for a user of the commands."""
    parts = (str(error), *getattr(error, "__notes__", ()))
    return " ".join(translate(" ".join(_sentence(part) for part in parts)).split())


def translate(text: str) -> str:
    """The *text* of a message with the words of commands instead of those of the API. Quotations stay as they are."""
    replacements = list(_PATTERNS.values())

    def replace(match: re.Match[str]) -> str:
        number = next(number for number in range(len(replacements)) if match[f"p{number}"] is not None)
        return replacements[number](match)

    return _ANY_PATTERN.sub(replace, text)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
