"""The public verbs: `open`, the store, its namespaces, and the nouns memories, assemblies and tags.

A verb checks its arguments, runs one function of a capability inside a transaction, and returns records.
May import every other package but `cli`, `importers` and `visualize`.
"""
