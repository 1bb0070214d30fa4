"""The review page and its modules."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from pipeline.api.problems import Problem

from .files import File

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).resolve().parent.parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".txt": "text/plain", ".png": "image/png"}
FILES = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in KINDS}
ASKED_AGAIN = {"cache-control": "no-cache"}


@router.get("/")
async def index() -> File:
    return File(FILES["index.html"], media_type="text/html", headers=ASKED_AGAIN)


@router.get("/page/{name:path}")
async def file(name: str) -> File:
    """A file of the page. Names are looked up in a list; no path is made of them."""
    if name not in FILES:
        raise Problem(404, "the page has no such file")
    return File(FILES[name], media_type=KINDS[FILES[name].suffix], headers=ASKED_AGAIN)
