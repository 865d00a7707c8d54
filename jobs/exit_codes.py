"""How a command ended, as its caller's shell sees it."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
"""Wrong usage, or problems in the job file."""
EXIT_QUARANTINED = 3
"""Done, but more in quarantine than `limits.max_quarantined_fraction`; or exported without images that are gone."""
EXIT_BUDGET = 4
"""A budget of the job is spent; the same command goes on with what is pending, and a budget of its own."""
EXIT_INTERRUPTED = 130
"""Resumable: the same command goes on."""
