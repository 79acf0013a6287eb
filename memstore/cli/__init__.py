"""The command line, behind the extra `cli`: `memstore --help`.

* `main`: the entry point, which works with the core alone; `app`: every command in its place, errors and exit codes.
* `options`: the arguments commands share, and their values; `opening`: stores opened, with or without an embedder.
* `output`: what people and machines read; `interchange`: a record as a line of JSON and back.
* `memories`, `assemblies`, `tags`, `upkeep`, `backups`, `transfer`, `doctor`, `demo`: the commands.
* `passages`, `reading`, `reference`: texts in parts, files to import, and the text the demo stores.
* `child`: a module in a process of its own; `probe`: what loading FAISS does to one.
"""
