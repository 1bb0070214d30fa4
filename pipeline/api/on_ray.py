"""The desk on Ray Serve: `serve deploy configs/serve/desk.yaml`, or `tower serve --on-ray`."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from cluster.serve import application, jobs_address, listening_host
from pipeline.render.ray_jobs import RayJobs
from pipeline.story.errors import InputError
from pipeline.story.settings import load_settings

from .guard import is_loopback
from .opened import open_app

NAME = "tower-desk"


def build() -> FastAPI:
    """In the replica: the app, whose renders are jobs of the same cluster."""
    return _open(is_loopback(listening_host()))


def check(loopback: bool, shared: list[Path]) -> None:
    """On the head: whether the app can be built there.

    Args:
        loopback: whether only the head's own machine will reach it. shared: folders of the machine that asks.

    Raises:
        InputError: one of these folders is not there, a setting is wrong, or a folder cannot be written.
        CatalogError: the catalog cannot be opened.
    """
    for folder in shared:
        if not folder.is_dir():
            raise InputError(
                f"folder {folder} is not on the cluster's head; give TOWER_CATALOG_URI as s3://bucket/prefix, or as the absolute path of a "
                f"folder that all nodes share"
            )
    _open(loopback)


def _open(loopback: bool) -> FastAPI:
    return open_app(load_settings(), lambda settings, catalog: RayJobs(jobs_address(), settings, catalog), loopback)


desk = application("Desk", build)
