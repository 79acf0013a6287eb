r"""The filter language of `where=`: what it says, its translation to SQL, and a slow evaluator that defines it.

A filter is a mapping. Several keys are joined by *and*; `{}` matches every record::

    {"importance": {"$gte": 0.5}, "metadata.source": "chat"}
    {"$or": [{"tags": {"$contains": "tea"}}, {"metadata.kind": {"$in": ["note", None]}}]}
    {"expires_at": {"$not": {"$lt": datetime.now(UTC)}}}

=================================== =================================================================================
`{field: value}`                    short for `{field: {"$eq": value}}`
`{field: {operator: operand, …}}`   every operator holds
`{"$and": [filter, …]}`             every filter holds; the list is not empty
`{"$or": [filter, …]}`              at least one holds; the list is not empty
`{"$not": filter}`                  the filter does not hold
=================================== =================================================================================

Operators of a field:

=========================== =========================================================================================
`$eq`, `$ne`                the same value, or not; on a list or an object, deep equality
`$in`, `$nin`               the same as one of a list of values (which may be empty), or as none
`$gt`, `$gte`, `$lt`,       in order, against a number, a text, a boolean (False is less than True) or a time
`$lte`
`$exists`                   True: the field is there; False: it is not
`$contains`                 a text holds this text; a list, or `tags`, holds this value
`$startswith`               a text begins with this text
`$not`                      `{field: {"$not": {operator: operand}}}`: these operators do not all hold
=========================== =========================================================================================

Fields of a memory are `id`, `content`, `tags`, `metadata`, `importance`, `access_count`, `pinned`, `created_at`,
`updated_at`, `expires_at`, `accessed_at` and `embedding`; of an assembly `id`, `name`, `description`, `tags`, `topics`,
`metadata`, `member_count`, `revision`, `activation_count`, `created_at`, `updated_at`, `activated_at` and `composite`.
A value in metadata is `metadata.a.b`; a key that holds a dot, a bracket or nothing at all is a JSON text in brackets:
`metadata["a.b"].c`. Steps are keys of objects; there is no step into a list. `embedding` and `composite` compare with
None only.

Truth is two-valued, as in Python:

* `$ne`, `$nin` and `$not` are exact negations, so they also match where the field is missing or of another type.
  Every other operator but `$exists: False` matches no missing field.
* Fields of the record are always there. One that is None (`expires_at`, `accessed_at`, `activated_at`, `embedding`,
  `composite`) is what null is in metadata. A path in metadata is there when every step is a key of an object.
* None is the same as null only. Booleans are the same as booleans only (True is not 1), numbers as numbers of equal
  value (1 is 1.0), texts as texts of the same code points, times as the same instant.
* An order or `$contains` over a value of another type matches nothing and is no error. Texts are in the order of
  their code points.
* Lists are the same item by item, objects key by key in any order. A tuple is a list. JSON has no times, so a time
  is the same as nothing in metadata.
* `tags` is a set: `$eq` and `$ne` take a collection of texts, `$in` and `$nin` a list of collections, `$contains` one
  text. No other operator but `$exists` and `$not` works on it.

Refused with `FilterError`: an unknown field or operator, a naive time, NaN and infinity, an integer beyond 64 bits,
half of a surrogate pair, and a metadata key that holds `"`, `\` or a control character (U+0000 to U+001F), which
SQLite's JSON paths cannot name. A filter has at most 20 levels (`where` itself is the first; each `$and`, `$or` and
`$not`, and each list or object inside an operand, goes one deeper) and 1,000 operands (every value compared with, also
each one inside a list or an object, and every `{}`).
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
