"""A store drawn as one page of HTML: memories as points, assemblies as groups, to be looked at in any browser.

The page needs nothing but itself: no network, no server, no other file.
"""

from memstore.visualize.drawing import MAX_POINTS, Drawn, write_map

__all__ = ["MAX_POINTS", "Drawn", "write_map"]
