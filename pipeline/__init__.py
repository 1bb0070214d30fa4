"""Pipeline: the story of a render, and the front doors. It may import every other room of the house; no room may import it.

Rooms inside, each importing only those before it:

| room | holds |
|---|---|
| `story/` | what people write, read and checked |
| `registry/` | workflows as the catalog holds them, and how they came to be proven |
| `plan/` | what each shot is made from; what holds, what is stale and why |
| `render/` | one run: claim, drive, a shot's life, its takes, its gates |
| `post/` | accepted takes to an episode |
| `evidence/` | benchmark jobs, judging again, a person's reviews, the generated pages |
| `doctor/` | what can run here, and what to do about what cannot |
| `cli/` | the command line |
"""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent  # the folder that holds configs/ and the rooms
