"""Deleted data is gone from the file, and private data stays private."""

# Erase.

# History is bounded.

# File modes.

# Errors and terminals show no contents.

# Namespaces.
