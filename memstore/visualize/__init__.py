"""The map: a store as one HTML page, with memories as points and assemblies as groups of one colour.

A page is one file and uses no network; it contains the texts of the memories that it shows.
May import `api` and what `api` imports.
"""

from memstore.visualize.writer import MAX_POINTS, MapReport, write_map

__all__ = ["MAX_POINTS", "MapReport", "write_map"]
