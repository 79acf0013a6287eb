"""Erasing everything of a namespace: records, trash, history, merges, tags and the path of the namespace itself."""

from dataclasses import replace

from memstore.models.records import Namespace
from memstore.models.reports import EraseReport
from memstore.repository import erasure, namespaces
from memstore.repository.context import WriteContext


def erase_namespace(context: WriteContext, namespace: Namespace, *, recursive: bool) -> EraseReport:
    """Erase everything of *namespace* and, with *recursive*, of all below it."""
    connection = context.connection
    namespace_pks = namespaces.keys_at(connection, namespace, recursive=recursive)
    paths = tuple(sorted(namespaces.path(connection, pk) for pk in namespace_pks))
    report = erasure.erase_namespaces(connection, namespace_pks)
    return replace(report, namespaces=paths)


def clear(context: WriteContext, namespace: Namespace, *, recursive: bool) -> int:
    """As `erase_namespace`; how many memories and assemblies there were, without the archived ones."""
    report = erase_namespace(context, namespace, recursive=recursive)
    return report.memories + report.assemblies
