"""Records, memberships and changes agree at every moment."""

# One state at one moment.

# Undo and unmerge compare what they undo.

# Damage in the history.

# Undo and the trash.

# Small promises.
