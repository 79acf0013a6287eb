"""JSON merge patches of metadata: https://www.rfc-editor.org/rfc/rfc7396.

A patch is an object. Its values replace those of the same keys, objects are merged key by key, and None removes a key.
So a patch cannot store null, and a list is replaced as a whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memstore.errors import InvalidError
from memstore.models.records import Json
from memstore.validation.text import check_metadata

Patch = dict[str, Json]


def check_patch(value: object) -> Patch:
    """A copy of *value*, the argument `metadata_patch`, else `InvalidError`."""
    if not isinstance(value, Mapping):
        raise InvalidError(f"Invalid metadata_patch: expected a dict, found {type(value).__name__}")
    return check_metadata(value)


def pop_patch(fields: Mapping[str, Any]) -> tuple[dict[str, Any], Patch | None]:
    """*fields* without `metadata_patch`, and the patch, checked. Raises `InvalidError` if `metadata` is there too."""
    rest = dict(fields)
    if "metadata_patch" not in rest:
        return rest, None
    patch = rest.pop("metadata_patch")
    if rest.get("metadata") is not None:
        raise InvalidError("Conflicting arguments metadata and metadata_patch: both set the metadata. Pass one of them")
    return rest, check_patch(patch)


def patched(document: Mapping[str, Json], patches: Iterable[Patch]) -> dict[str, Json]:
    """*document* after each of *patches*. Raises `InvalidError` where the result exceeds the limits of metadata."""
    result: Json = dict(document)
    for patch in patches:
        result = _merge(result, patch)
    return check_metadata(result)


def _merge(target: Json, patch: Json) -> Json:
    """The function MergePatch of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


def split_patches(items: Sequence[Any]) -> tuple[Sequence[Any], dict[int, Patch]]:
    """The *items* of an upsert with `metadata` in place of `metadata_patch`, and the patches by position.

    The metadata is what the patch makes of no metadata, for an item whose id does not exist.
    """
    places = [i for i, item in enumerate(items) if isinstance(item, Mapping) and "metadata_patch" in item]
    patches: dict[int, Patch] = {}
    if not places:
        return items, patches
    result = list(items)
    for i in places:
        fields, patch = pop_patch(items[i]) if items[i]["metadata_patch"] is not None else (dict(items[i]), None)
        if patch is None:
            del fields["metadata_patch"]  # None is the default of `upsert`
        else:
            patches[i] = patch
            fields["metadata"] = patched({}, [patch])
        result[i] = fields
    return result, patches
