"""Pipeline: plans, renders and delivers episodes, and holds the two front doors: the desk and the command line.

It may import the rooms gates, actors, catalog and cluster; none of them may import it. Its own rooms, each importing only those above it:

| room | holds |
|---|---|
| `story/` | types and readers of the files that people write |
| `registry/` | workflows in the catalog: versions, files, status, promotions |
| `plan/` | what each shot is made from; which takes are still valid, which shots are stale and why |
| `render/` | one run: the claim on the episode, the shots, their takes, their gates |
| `post/` | assembles accepted takes into an episode |
| `evidence/` | benchmarks, judging stored takes again, a person's reviews, the generated pages |
| `doctor/` | what can run here, and how to fix what cannot |
| `api/` | the desk: the web service and its page |
| `cli/` | the command line |
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent  # the folder that holds configs/ and the rooms

# First on the path, before the folder in which a person calls Tower: that one may hold a folder called `catalog`.
if (PROJECT / "pyproject.toml").is_file() and sys.path[0] != str(PROJECT):
    sys.path.insert(0, str(PROJECT))
