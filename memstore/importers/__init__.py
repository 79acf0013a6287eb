"""Data brought into a store: a folder of JSON files, one for each memory and assembly; another store, embedded anew.

Everything of a folder that is not stored unchanged has a remark in the report. `docs/import-folder.md` describes the
layout, the mapping of each field, and the treatment of faults. May import `api` and what `api` may import.
"""

from memstore.importers.files import vector_sizes
from memstore.importers.folder import import_folder
from memstore.importers.reembed import reembed
from memstore.importers.report import FolderReport, Remark

__all__ = ["FolderReport", "Remark", "import_folder", "reembed", "vector_sizes"]
