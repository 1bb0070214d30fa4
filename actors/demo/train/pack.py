"""What comes back from a training: few flat files of a limited size."""

from __future__ import annotations

import contextlib
import tarfile
from pathlib import Path

from PIL import Image

FOLDERS = ("stable-diffusion", "motion-adapter", "ltx-video")
LARGEST = 16_000_000  # bytes of a file
BLOCK, RECORD = 512, 10_240  # bytes: a tar file's header, and what its length is rounded up to


def pack(checkpoints: Path, out: Path) -> list[Path]:
    """The finished folders' files in uncompressed tar files; large ones first, each where it still fits."""
    files = sorted((f for name in FOLDERS for f in (checkpoints / name).rglob("*") if f.is_file()), key=lambda f: -f.stat().st_size)
    bins: list[tuple[int, list[Path]]] = []
    for file in files:
        size = -(-file.stat().st_size // BLOCK) * BLOCK + BLOCK
        for i, (used, inside) in enumerate(bins):
            if used + size + RECORD <= LARGEST:
                bins[i] = (used + size, [*inside, file])
                break
        else:
            bins.append((size, [file]))
    return [_tar(out / f"checkpoints-{i + 1}.tar", checkpoints, inside) for i, (_, inside) in enumerate(bins)]


def contact_sheet(pictures: Path, file: Path) -> None:
    """All of the folder's pictures below each other, as one JPEG; none if there are none."""
    sheets = []
    for path in sorted(pictures.glob("*.png")):
        with contextlib.suppress(OSError):  # its writer was stopped
            sheets.append(Image.open(path).convert("RGB"))
    if not sheets:
        return
    sheet = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)))
    top = 0
    for part in sheets:
        sheet.paste(part, (0, top))
        top += part.height
    sheet.thumbnail((2400, 12_000))
    sheet.save(file, quality=88)


def _tar(file: Path, folder: Path, inside: list[Path]) -> Path:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(inside):
            tar.add(path, path.relative_to(folder))
    return file
