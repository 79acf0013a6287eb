"""A folder of JSON files, one a memory and one an assembly, as memories and assemblies of a store.

Such folders were written by a system that memstore replaces; `docs/import-folder.md` says how they look, what becomes
of each field, and what is done about their faults. What cannot be taken is named in the report, with the reason.
"""

from memstore.importers.files import vector_sizes
from memstore.importers.folder import import_folder
from memstore.importers.report import FolderReport, Remark

__all__ = ["FolderReport", "Remark", "import_folder", "vector_sizes"]
