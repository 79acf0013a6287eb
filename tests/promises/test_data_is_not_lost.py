"""Ordinary acts of the host program lose no data."""

# The file is read, copied, or its log removed while it is open.

# Two SQLite libraries in one process.

# Two names of one file.

# A full disk.

# Snapshots of several processes.

# Interrupted backups, restores and exports.
