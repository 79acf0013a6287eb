"""Vectors in memory: exact search, and a search graph (HNSW) over the same memory.

An index holds exactly the entries that were put into it; it never reads the database.
May import `errors`, `config`, `concurrency` and `vectors`; only `faiss_engine` imports faiss.
"""
