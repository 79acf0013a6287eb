"""The command line, in the extra `cli`: `memstore --help`.

Owns the commands, their options and what they print; a store is reached through the public API. `main` is the entry
point and works without the extra; `app` lists the commands and turns errors into exit codes. May import every other
package; none imports it.
"""
