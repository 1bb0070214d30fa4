"""Benchmarks: jobs that measure. Each prints a table; figures in the documents come from these commands.

They may import every room; no room may import them. Timings belong here and never into a test.
"""

import actors  # noqa: F401 - its settings for the model libraries must come before they are imported
