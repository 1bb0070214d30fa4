"""The report of an episode: a page to be mailed or laid on a share, which opens without a server, a network or a script."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catalog.media import MediaStore
from pipeline.story.errors import InputError, StorageError

from .report_facts import Facts
from .report_media import ShotMedia, write_media

HERE = Path(__file__).parent
STATES = ("approved", "picked", "accepted", "retake", "rejected", "waiting")
POLICY = "default-src 'none'; img-src 'self' data: file:; media-src 'self' data: file:; form-action 'none'; base-uri 'none'"
TYPES = {".jpg": "image/jpeg", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Price:
    """Of one GPU for one hour. currency: as it is to be written."""

    amount: float
    currency: str


def write_report(facts: Facts, store: MediaStore, out: Path, width: int, one_file: bool, price: Price | None) -> Path:
    """Write a report, in the place of an earlier one. Gives the page: `out`/report/index.html, or `out`/report.html as one file.

    Args:
        out: the episode's folder. width: pixels, of clips and keyframes. price: None: the report tells no cost.

    Raises:
        InputError: what stands in its place is no report.
        MediaDamaged, Undecodable: the file of a take that stands is missing or damaged. An earlier report stays.
        StorageError: the report cannot be written.
    """
    target = out / ("report.html" if one_file else "report")
    _check_place(target)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as folder:
            made = Path(folder) / "report"
            media = made / "media"
            media.mkdir(parents=True)
            files = write_media(facts, store, width, media)
            page = made / "index.html"
            with page.open("w", encoding="utf-8") as stream:
                stream.writelines(_page(facts, files, price, _inline(media) if one_file else "media/{}".format))
            if one_file:
                os.replace(page, target)
                return target
            if target.exists():
                target.rename(Path(folder) / "before")
            made.rename(target)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target / "index.html"


def _check_place(target: Path) -> None:
    """Raises InputError where the report would replace what is none."""
    if target.suffix and target.is_dir():
        raise InputError(f"{target} is a folder; the report would be a file of that name")
    if not target.suffix and target.exists():
        strange = sorted(p.name for p in target.iterdir() if p.name not in ("index.html", "media")) if target.is_dir() else [target.name]
        if strange:
            raise InputError(f"{target} holds {strange[0]}, which is no report's; move it, or write the report elsewhere with --out")


def _inline(media: Path) -> Callable[[str], str]:
    """A file's bytes as a data URI, read when the page needs them: the memory never holds more than one."""

    def uri(name: str) -> str:
        return f"data:{TYPES[Path(name).suffix]};base64,{base64.b64encode((media / name).read_bytes()).decode()}"

    return uri


def _page(facts: Facts, media: dict[str, ShotMedia], price: Price | None, uri: Callable[[str], str]) -> Iterator[str]:
    """The page in pieces. Everything from people and models is escaped; the policy lets nothing run and nothing load from elsewhere."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style = (HERE / "report_page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    counts = Counter(shot.state for shot in facts.shots)
    values: dict[str, Any] = {
        "facts": facts,
        "media": media,
        "price": price,
        "uri": uri,
        "style": Markup(style),
        "policy": f"{POLICY}; style-src 'sha256-{digest}'",
        "at": datetime.now(UTC),
        "counts": [f"{counts[state]} {state}" for state in STATES if counts[state]],
        "spans": _spans([shot.state for shot in facts.shots]),
        "total": sum(take.device_seconds for take in facts.takes),
        "unit": unit(facts),
        "devices": sorted({take.device for take in facts.takes if take.device}),
        "minutes": lambda seconds: f"{seconds / 60:,.1f}",
        "cost": lambda seconds: f"{seconds / 3600 * price.amount:,.2f} {price.currency}" if price else "",
    }
    return environment.get_template("report_page.html").generate(values)


def _spans(states: list[str]) -> list[tuple[str, int, int]]:
    """Runs of equal states along the episode: state, first shot, number of shots."""
    spans, first = [], 0
    for state, run in groupby(states):
        many = len(list(run))
        spans.append((state, first, many))
        first += many
    return spans


def unit(facts: Facts) -> str:
    """What device time is called: GPU-minutes, or device-minutes where a take came from no GPU."""
    return "GPU-minutes" if all(take.on_gpu for take in facts.takes if take.device_seconds) else "device-minutes"


def bytes_of(page: Path) -> int:
    """Bytes of a report: of its one file, or of the folder that its page is in."""
    files = page.parent.rglob("*") if page.name == "index.html" else [page]
    return sum(file.stat().st_size for file in files if file.is_file())
