"""`tower render` with stand-in models: python -m benchmarks.soak_driver EPISODE --out DIR"""

from __future__ import annotations

import sys
from dataclasses import replace

import cluster.code
import pipeline.render.needs
from actors.families import FAMILIES
from pipeline.cli.main import main

from .stand_ins import CLIPS, KEYFRAMES, PROMPTS

if __name__ == "__main__":
    cluster.code.FOLDERS = (*cluster.code.FOLDERS, "benchmarks")  # the stand-ins travel too,
    cluster.code.SKIPPED = ("__pycache__", "deploy")  # with the scenes that they draw
    FAMILIES.update({name: replace(f, model=KEYFRAMES if f.stage == "keyframe" else CLIPS) for name, f in FAMILIES.items()})
    pipeline.render.needs.ENCODER = PROMPTS
    sys.argv[1:1] = ["render"]
    main()
