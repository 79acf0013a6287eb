"""Checks of what callers pass: values, texts, metadata, and whole records.

A value is refused or stored exactly; nothing is changed silently.
May import `errors`, `models`, `vectors` and `timestamps`.
"""
