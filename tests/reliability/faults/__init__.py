"""Faults of the file system: a disk that fails, and power cuts.

* `shim`: builds `shim.c`, which stands before the C library's file calls, and drives it.
* `workload`: the process that runs a history on the failing disk, and judges itself.
* `journal`: what the shim wrote down: every write, truncation, sync, creation and deletion, and every acknowledgement.
* `replay`: the states in which a power cut may have left the disk.
"""
