r"""The filter language of `where=`: its grammar, its translation to SQL, and an evaluator that defines its meaning.

Every translation to SQL selects the records that `evaluator.matches` selects.
May import `errors`, `models`, `timestamps`, `validation` and `schema`.

A filter is a mapping. Several keys are joined by *and*. `{}` matches every record::

    {"importance": {"$gte": 0.5}, "metadata.source": "chat"}
    {"$or": [{"tags": {"$contains": "tea"}}, {"metadata.kind": {"$in": ["note", None]}}]}
    {"expires_at": {"$not": {"$lt": datetime.now(UTC)}}}

=================================== =================================================================================
`{field: value}`                    short for `{field: {"$eq": value}}`
`{field: {operator: operand, …}}`   every operator matches
`{"$and": [filter, …]}`             every filter matches; the list is not empty
`{"$or": [filter, …]}`              at least one matches; the list is not empty
`{"$not": filter}`                  the filter does not match
=================================== =================================================================================

Operators of a field:

=========================== =========================================================================================
`$eq`, `$ne`                equal, or not; for a list or an object, deep equality
`$in`, `$nin`               equal to one of a list of values (which may be empty), or to none
`$gt`, `$gte`, `$lt`,       in this order to a number, a text, a boolean (False is less than True) or a time
`$lte`
`$exists`                   True: the field exists; False: it does not
`$contains`                 a text contains this text; a list, or `tags`, contains this value
`$startswith`               a text starts with this text
`$not`                      `{field: {"$not": {operator: operand}}}`: these operators do not all match
=========================== =========================================================================================

Fields of a memory are `id`, `content`, `tags`, `metadata`, `importance`, `access_count`, `pinned`, `created_at`,
`updated_at`, `expires_at`, `accessed_at` and `embedding`; of an assembly `id`, `name`, `description`, `tags`, `topics`,
`metadata`, `member_count`, `revision`, `activation_count`, `created_at`, `updated_at`, `activated_at` and `composite`.
A value in metadata is `metadata.a.b`; a key that is empty or contains a dot or a bracket is a JSON text in brackets:
`metadata["a.b"].c`. Steps are keys of objects; a path cannot step into a list. `embedding` and `composite` compare
with None only.

Truth is two-valued, as in Python:

* `$ne`, `$nin` and `$not` are exact negations, so they also match where the field is missing or of another type.
  No other operator but `$exists: False` matches a missing field.
* Fields of the record always exist. None in one of them (`expires_at`, `accessed_at`, `activated_at`, `embedding`,
  `composite`) is null. A path in metadata exists where every step is a key of an object.
* None equals null only. Booleans equal booleans only (True is not 1), numbers equal numbers of the same value
  (1 is 1.0), texts equal texts of the same code points, times equal the same instant.
* An order or `$contains` over a value of another type in metadata matches nothing and is no error. Texts are in the
  order of their code points.
* Lists are equal item by item, objects key by key in any order. A tuple is a list.
* A time is an aware datetime, or ISO 8601 text with an offset. A numeric scalar of NumPy is the number it equals.
* `tags` is a set: `$eq` and `$ne` take a collection of texts, `$in` and `$nin` a list of collections, `$contains` one
  text. No other operator but `$exists` and `$not` works on it.

What can never match raises `FilterError`: an operand of a type that the field never has (a text for a number, None for
a field that is never None, a time in metadata, because JSON has none), an operator that the field has no use for, an
operator without its `$`, and an object for the whole of `metadata` without `$eq`.

Each of these raises `FilterError` too: an unknown field or operator, a naive time, NaN and infinity, an integer beyond
64 bits, half of a surrogate pair, and a metadata key that contains `"`, `\` or a control character (U+0000 to U+001F),
which SQLite's JSON paths cannot name.

A filter has at most 20 levels and 1,000 operands. `where` itself is the first level; each `$and`, `$or` and `$not`, and
each list or object inside an operand, adds one. An operand is every value that is compared, also inside a list or an
object, and every `{}`.
"""

from memstore.filters.evaluator import matches
from memstore.filters.json_paths import Path, indexed, written
from memstore.filters.nodes import EVERYTHING, Node
from memstore.filters.parser import MAX_LEVELS, MAX_OPERANDS, Where, parse
from memstore.filters.sql import condition

__all__ = [
    "EVERYTHING",
    "MAX_LEVELS",
    "MAX_OPERANDS",
    "Node",
    "Path",
    "Where",
    "condition",
    "indexed",
    "matches",
    "parse",
    "written",
]
