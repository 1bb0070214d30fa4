"""Where a catalog is: a folder, or a prefix in S3-compatible storage."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs


@dataclass(frozen=True)
class Place:
    """An absolute folder or `s3://bucket/prefix`. It holds no connection, so it can be sent to CPU tasks.

    S3 storage is configured by the usual environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_REGION, AWS_ENDPOINT_URL for storage that is not Amazon's, and AWS_ALLOW_HTTP=true where that
    endpoint has no TLS.
    """

    uri: str

    @classmethod
    def of(cls, place: Path | str | Place) -> Place:
        if isinstance(place, Place):
            return place
        text = str(place)
        return cls(text.rstrip("/") if "://" in text else str(Path(text).absolute()))

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def folder(self) -> Path:
        """The folder of a local catalog."""
        assert self.is_local
        return Path(self.uri)

    def __str__(self) -> str:
        return self.uri

    def table(self, name: str) -> str:
        """Address of the Delta table of that name."""
        return f"{self.uri}/{name}"

    @property
    def files(self) -> pafs.FileSystem:
        """The file system; its paths are relative to the catalog."""
        return _files(self.uri)


@cache
def _files(uri: str) -> pafs.FileSystem:
    if "://" not in uri:
        return pafs.SubTreeFileSystem(uri, pafs.LocalFileSystem())
    options: dict[str, Any] = {"region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"}
    if os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_override"] = os.environ["AWS_ENDPOINT_URL"]
    return pafs.SubTreeFileSystem(uri.removeprefix("s3://"), pafs.S3FileSystem(**options))
