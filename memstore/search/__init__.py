"""One search: activation of assemblies, score boosts, explanations, neighbors and reranking.

A search reads one state of the file and of the index.
May import `session`, `repository`, `sync`, `index`, `filters`, and what those import.
"""
