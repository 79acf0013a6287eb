"""The exit codes of the command line."""

ERROR = 1
INVALID = 2
PROBLEM = 3
INTERRUPTED = 130
OUTPUT_CLOSED = 141

EXIT_CODES = (
    "Exit codes: 0 success; 1 an error, described in one line on stderr; 2 invalid arguments; 3 check, repair, verify "
    "or doctor found a problem, or import-folder or erase left something out; 130 interrupted by Ctrl-C; 141 the "
    "reader of the output closed it."
)
