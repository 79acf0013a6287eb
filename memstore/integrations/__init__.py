"""Adapters to other packages, each behind an extra of its own and imported by its own name."""
