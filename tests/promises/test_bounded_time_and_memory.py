"""Nothing hangs, blocks other calls, or grows without limit."""

# Reads.

# Embedders.

# Compact, members, expiry.

# Memory of the index.

# Event loops and frozen clocks.
