"""Writing a finished checkpoint, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

SHARD = "12MB"  # no file of a checkpoint is larger


def write(folder: Path, model: Any) -> None:
    """save_pretrained to `folder`, which another process sees only when it is complete."""
    part = folder.with_name(f".{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, max_shard_size=SHARD)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
