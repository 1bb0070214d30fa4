"""The desk on Ray Serve: `serve run configs/serve/desk.yaml`, or `tower serve --on-ray`."""

from __future__ import annotations

import os

from fastapi import FastAPI

from cluster.serve import application, jobs_address
from pipeline.render.ray_jobs import RayJobs
from pipeline.story.settings import load_settings

from .opened import open_app

NAME = "tower-desk"
ON_LOOPBACK = "TOWER_DESK_LOOPBACK"  # set by `tower serve --on-ray`, which knows where the head node listens


def build() -> FastAPI:
    """In the replica: the app, whose renders are jobs of the same cluster."""
    loopback = os.environ.get(ON_LOOPBACK) == "1"
    return open_app(load_settings(), lambda settings, catalog: RayJobs(jobs_address(), settings, catalog), loopback)


desk = application("Desk", build)
