"""The fields of memories and assemblies as callers pass them, as types: keyword arguments, and items of many-forms."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Required, TypedDict

from memstore.models.records import EmbeddingLike, Namespace


class MemoryFields(TypedDict, total=False):
    """The fields of `memories.add` beside the content."""

    id: str | None
    embedding: EmbeddingLike | None
    tags: Iterable[str]
    metadata: Mapping[str, object] | None
    importance: float
    created_at: datetime | None
    updated_at: datetime | None
    expires_at: datetime | None
    ttl: float | timedelta | None
    accessed_at: datetime | None
    access_count: int | None
    pinned: bool | None


class MemoryItem(MemoryFields, total=False):
    """An item of `memories.add_many`."""

    content: Required[str]
    namespace: Namespace


class MemoryChanges(TypedDict, total=False):
    """The fields that `memories.update_many` can change."""

    content: str
    embedding: EmbeddingLike | None
    tags: Iterable[str]
    metadata: Mapping[str, object]
    metadata_patch: Mapping[str, object]
    importance: float
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    ttl: float | timedelta
    accessed_at: datetime | None
    access_count: int
    pinned: bool


class AssemblyFields(TypedDict, total=False):
    """The fields of `assemblies.add` beside the id."""

    name: str
    description: str
    members: Iterable[str] | None
    tags: Iterable[str]
    topics: Iterable[str]
    metadata: Mapping[str, object] | None
    created_at: datetime | None
    updated_at: datetime | None
    activation_level: float | None
    activated_at: datetime | None
    activation_count: int | None


class AssemblyItem(AssemblyFields, total=False):
    """An item of `assemblies.add_many`."""

    id: Required[str]
    namespace: Namespace


class AssemblyChanges(TypedDict, total=False):
    """The fields that `assemblies.update_many` can change."""

    name: str
    description: str
    tags: Iterable[str]
    topics: Iterable[str]
    metadata: Mapping[str, object]
    metadata_patch: Mapping[str, object]
    created_at: datetime
    updated_at: datetime
