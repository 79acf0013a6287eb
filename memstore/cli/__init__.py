"""The command line, behind the extra `cli`: `memstore --help`.

* `main`: the entry point, which works with the core alone; `app`: every command in its place, errors and exit codes.
* `options`: the arguments commands share, and their values; `opening`: stores opened, with or without an embedder.
* `output`: what people and machines read; `interchange`: a record as a line of JSON and back.
* `memories`, `assemblies`, `tags`, `upkeep`, `transfer`, `doctor`, `demo`: the commands.
* `passages`, `reading`: texts in parts, and files to import; `probe`: what loading FAISS does, in a process of its own.
"""
