"""Settings from the environment or a `.env` file, prefix TOWER_."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalog.place import Place
from pipeline import PROJECT

from .errors import InputError


class Settings(BaseSettings):
    """Where files and the catalog are, and how many devices to use. RAY_ADDRESS is not among them: Ray reads it itself."""

    model_config = SettingsConfigDict(env_prefix="TOWER_", env_file=".env", extra="ignore")

    catalog_uri: str = Field("./catalog-data", description="where the catalog is: a folder, or s3://bucket/prefix")
    models_dir: Path = Field(PROJECT / "models", description="folder that workflows' model paths start from")
    cluster_profile: str | None = Field(None, description="cluster profile: a name in configs/cluster, or a file")
    devices: int | None = Field(None, ge=1, le=1024, description="GPUs to use, or logical devices on a machine without")
    resident_models: int | None = Field(None, ge=1, description="models that a device may hold at once; 1 suits a 12 GB card")
    log_seconds: float = Field(30.0, ge=0, description="without a terminal: seconds between lines; 0 is a line a take")
    dashboard_port: int | None = Field(None, ge=1, le=65535, description="port of Ray's dashboard; unset: Ray chooses")
    job: str | None = Field(None, description="id of the job that a render is part of; who starts a job sets it")

    desk_token: str = Field("", description="what everybody must show to `tower serve`; needed where it listens off loopback")
    c2pa_certificate: Path | None = Field(None, description="certificates that movies are signed with, PEM; unset: they are not signed")
    c2pa_key: Path | None = Field(None, description="their private key, PEM")

    @property
    def place(self) -> Place:
        """Where the catalog is.

        Raises:
            InputError: TOWER_CATALOG_URI is neither a folder nor s3://bucket/prefix.
        """
        scheme, separator, rest = self.catalog_uri.partition("://")
        if separator and (scheme != "s3" or not rest.strip("/")):
            raise InputError(f"TOWER_CATALOG_URI {self.catalog_uri} is neither a folder nor s3://bucket/prefix")
        if separator:
            return Place.of(self.catalog_uri)
        try:
            return Place.of(Path(self.catalog_uri).expanduser())
        except RuntimeError as error:
            raise InputError(f"TOWER_CATALOG_URI {self.catalog_uri}: {str(error).lower()}") from error


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        InputError: a setting has an invalid value, or is set under its former name.
    """
    if "TOWER_PROFILE" in os.environ:
        raise InputError("setting TOWER_PROFILE is called TOWER_CLUSTER_PROFILE; gates have profiles too")
    try:
        return Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"TOWER_{str(first['loc'][0]).upper()}"
        raise InputError(f"setting {name} is {first['input']!r}: {first['msg'].lower()}") from error
