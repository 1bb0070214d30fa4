"""Pipeline: the story of a render, and the front doors.

Here live the episode and workflow files, the plan, one shot's life, the driver, the assembly and the
command line. It may import every other room; no room may import it.
"""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent  # the folder that holds configs/ and the rooms
