"""Vectors in memory: exact search, and a search graph over the same memory.

An index holds the entries it was given and no others; it never reads the database.
May import `errors`, `config`, `concurrency` and `vectors`; only `faiss_engine` imports faiss.
"""
