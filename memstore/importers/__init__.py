"""The import of a folder of JSON files, one for each memory and each assembly, into a store.

Everything that is not stored unchanged has a remark in the report. `docs/import-folder.md` describes the layout, the
mapping of each field, and the treatment of faults. May import `api` and what `api` may import.
"""

from memstore.importers.files import vector_sizes
from memstore.importers.folder import import_folder
from memstore.importers.report import FolderReport, Remark

__all__ = ["FolderReport", "Remark", "import_folder", "vector_sizes"]
