r"""Texts of callers and of files, made safe to print: in error messages, log lines and terminals.

A stored text can contain characters that control a terminal, reverse the order of the text around them, are invisible,
or begin a new line, so that a record forges a line of output. `escape_text` writes them as Python does (`\x1b`,
`\u202e`). Every `MemstoreError` and every log line of memstore passes through it.
"""

import logging
import re
from collections.abc import Mapping

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 controls, DEL, C1 controls
    "\xad\u061c\u180e\u200b\u200e\u200f"  # soft hyphen, Arabic letter mark, invisible characters, direction marks
    "\u2028-\u202e\u2060-\u206f"  # line and paragraph separators, directions and isolates, invisible operators
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # byte order mark, annotations, tag characters
    "\ud800-\udfff]"  # halves of surrogate pairs, which no output can encode
    # The joiners are part of emoji and of words of some scripts; beside ASCII they only hide.
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_NAMES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape_text(text: str, *, keep: str = "") -> str:
    r"""*text* with an escape for each character that is invisible, or controls a terminal or the order of a line.

    Args:
        text: any text.
        keep: characters that stay as they are, such as `"\n\t"`.

    Returns:
        One line that can be encoded in UTF-8, except for the characters of *keep*. It is for people: a backslash in
        *text* is not doubled, so the result cannot be decoded.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _NAMES.get(match[0]) or _escape(match[0]), text)


def escape_json(document: str) -> str:
    """The JSON text *document* with JSON escapes for the characters that `escape_text` escapes; an equal document.

    *document* has no white space but spaces outside its strings, as `json.dumps` writes it without `indent`.
    """
    if document.isascii() and document.isprintable():
        return document
    return _UNSAFE.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _utf16(match[0])), document)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2)]


class _EscapeArguments(logging.Filter):
    """Escapes the texts among the arguments of a log record, and its traceback. The template stays as it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):
            record.args = {name: _printable(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_printable, record.args))
        if record.exc_info and not record.exc_text:
            record.exc_text = escape_text(logging.Formatter().formatException(record.exc_info), keep="\n\t")
        return True


def _printable(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else escape_text(str(value))


_FILTER = _EscapeArguments()


def library_logger(name: str = "memstore") -> logging.Logger:
    """The logger *name*, whose lines contain no control characters or line breaks of stored texts.

    Every module of memstore gets its logger here.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)  # once, however often it is called
    return logger
