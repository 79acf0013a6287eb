"""The table of commands: where each is, and what the lists of commands say of it. Imports nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its module and function, what the list of commands says of it, and under which title."""

    module: str
    function: str
    summary: str
    panel: str | None = None


START, MEMORIES, FORGET, TRANSFER, STORE, GROUPS = (
    "Start here",
    "Memories",
    "Forgetting and history",
    "Import, export and backup",
    "The store",
    "Assemblies and tags",
)

COMMANDS = {
    "demo": Entry("demo", "demo", "Build a store from Python's language reference and show what it can do.", START),
    "doctor": Entry("doctor", "doctor", "Check what memstore runs on: SQLite, FAISS, OpenMP, packages.", START),
    "completion": Entry("completion", "completion", "Print a script that completes commands in a shell.", START),
    "add": Entry("memories", "add", "Add a memory; creates the store if there is none.", MEMORIES),
    "search": Entry("search", "search", "Search memories by meaning, best first.", MEMORIES),
    "explain": Entry("search", "explain", "Explain the rank of a memory in a search.", MEMORIES),
    "list": Entry("memories", "list_", "List memories, oldest first.", MEMORIES),
    "show": Entry("memories", "show", "Show a memory with all its fields.", MEMORIES),
    "update": Entry("updates", "update", "Change fields of memories; the others stay.", MEMORIES),
    "pin": Entry("updates", "pin", "Pin memories: no policy forgets them.", MEMORIES),
    "unpin": Entry("updates", "unpin", "Unpin memories.", MEMORIES),
    "delete": Entry("memories", "delete", "Delete memories, by id or by a filter.", MEMORIES),
    "forget": Entry("forgetting", "forget", "Move memories or assemblies to the trash by a policy.", FORGET),
    "trash": Entry("forgetting", "trash", "List the trash, latest first.", FORGET),
    "recover": Entry("forgetting", "recover", "Recover memories or assemblies from the trash.", FORGET),
    "purge": Entry("forgetting", "purge", "Delete old records in the trash permanently.", FORGET),
    "erase": Entry("erasure", "erase", "Erase records from the store, its trash and its history.", FORGET),
    "history": Entry("history", "history", "List the changes of a record, or set how long changes are kept.", FORGET),
    "undo": Entry("history", "undo", "Undo a change of a memory or an assembly.", FORGET),
    "import": Entry("import_export", "import_", "Import JSON Lines, Markdown or text files.", TRANSFER),
    "export": Entry("import_export", "export", "Export the store as JSON Lines.", TRANSFER),
    "import-folder": Entry("import_folder", "import_folder_", "Import a folder of JSON files.", TRANSFER),
    "backup": Entry("backups", "backup", "Copy the store into a new file.", TRANSFER),
    "verify": Entry("backups", "verify", "Verify a backup or a store.", TRANSFER),
    "restore": Entry("backups", "restore", "Replace the store with a backup.", TRANSFER),
    "map": Entry("map", "map_", "Write a map of the store as an HTML page.", STORE),
    "stats": Entry("maintenance", "stats", "Show what the store contains.", STORE),
    "check": Entry("maintenance", "check", "Check the store for damage.", STORE),
    "repair": Entry("maintenance", "repair", "Repair the store.", STORE),
    "compact": Entry("maintenance", "compact", "Return free space to the file system.", STORE),
    "optimize": Entry("maintenance", "optimize", "Build the search graph now.", STORE),
    "migrate": Entry("maintenance", "migrate", "Migrate the file of an older release.", STORE),
}

ASSEMBLIES = {
    "list": Entry("assemblies", "list_", "List assemblies, oldest first."),
    "show": Entry("assemblies", "show", "Show an assembly with all its fields and its first members."),
    "search": Entry("search", "search_assemblies", "Search assemblies by the mean of their members' vectors."),
    "add": Entry("assemblies", "add", "Create an assembly."),
    "add-members": Entry("assemblies", "add_members", "Add memories to an assembly."),
    "remove-members": Entry("assemblies", "remove_members", "Remove memories from an assembly."),
    "delete": Entry("assemblies", "delete", "Delete an assembly; its members stay."),
    "suggest": Entry("assembly_suggest", "suggest", "Suggest assemblies of near memories that are in none."),
    "merge-candidates": Entry("assembly_merge", "merge_candidates", "List pairs of assemblies near each other."),
    "merge": Entry("assembly_merge", "merge", "Merge assemblies into one."),
    "unmerge": Entry("assembly_merge", "unmerge", "Undo a merge."),
    "lineage": Entry("assembly_merge", "lineage", "Show the merges that led to an assembly, or from it."),
}

TAGS = {
    "list": Entry("tags", "list_", "List the tags in use, by name."),
    "rename": Entry("tags", "rename", "Rename a tag on all records that have it."),
    "delete": Entry("tags", "delete", "Remove a tag from all records that have it."),
}

SUBGROUPS = {
    "assemblies": (ASSEMBLIES, "Groups of memories, searched by the mean of their members' vectors."),
    "tags": (TAGS, "Labels of memories and assemblies."),
}
"""The groups of commands, each with its table and its summary."""
