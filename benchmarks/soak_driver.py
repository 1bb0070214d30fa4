"""`tower render` with stand-in models: python -m benchmarks.soak_driver EPISODE --out DIR"""

from __future__ import annotations

import sys

from pipeline.cli.main import main
from pipeline.story.workflow import MODELS

from .stand_ins import CLASSES

if __name__ == "__main__":
    MODELS.update(CLASSES)
    sys.argv[1:1] = ["render"]
    main()
