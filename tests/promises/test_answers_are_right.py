"""No answer is wrong without an error."""

# The graph finds rare, duplicated and long vectors.

# Filters that cannot match.

# The embedder that the file names.

# Exact means exact.

# A clock that moves.

# Damage is named.

# Assembly boost.
