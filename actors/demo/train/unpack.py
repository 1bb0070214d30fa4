"""Put trained checkpoints in the place of the ones that are there.

python -m actors.demo.train.unpack DIR [--to FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent


def unpack(packed: Path, to: Path) -> list[str]:
    """Every checkpoint folder in the tar files of `packed` replaces the one of that name in `to`; their names."""
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to) as scratch:
        for file in sorted(packed.glob("checkpoints-*.tar")):
            with tarfile.open(file) as tar:
                tar.extractall(scratch, filter="data")
        folders = sorted(Path(scratch).iterdir())
        for folder in folders:
            shutil.rmtree(to / folder.name, ignore_errors=True)
            folder.rename(to / folder.name)
    return [folder.name for folder in folders]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--to", type=Path, default=DEMO)
    args = parser.parse_args()
    if not any(args.dir.glob("checkpoints-*.tar")):
        print(f"error: {args.dir} holds no checkpoints-*.tar", file=sys.stderr)
        return 2
    print(f"{', '.join(unpack(args.dir, args.to))} are now in {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
