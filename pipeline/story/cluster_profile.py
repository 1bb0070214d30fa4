"""Cluster profiles, in configs/cluster/*.yaml: facts about the devices that a person knows and Tower cannot measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cluster.specs import PoolOptions
from pipeline import PROJECT

from .written import Name, Written
from .yaml_file import named_file, read_yaml

if TYPE_CHECKING:  # only for annotations: a profile is read without any settings
    from .settings import Settings

PROFILES = PROJECT / "configs" / "cluster"


class ClusterProfile(Written):
    """Everything has a default that fits one machine and a rack; a profile overrides."""

    name: Name
    description: str = ""
    device_memory_gb: dict[str, float] = Field(
        default_factory=dict,
        description="accelerator type (Ray's label, `other` for all others) to GB that models may take there; measured where not given",
    )
    resident_models: int | None = Field(None, ge=1, description="models that a device may hold at once; as many as fit, if not given")
    placement: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="family or workflow to labels that its devices' nodes must have, as Ray's label selectors: x, !x, in(x,y), !in(x,y)",
    )
    wait_minutes: float = Field(0.0, ge=0, le=24 * 60, description="for devices that an autoscaler brings; 0 where there is none")
    call_minutes: float = Field(60.0, gt=0, le=24 * 60, description="a call to a model that takes longer hangs: its device is replaced")
    live_shots_per_device: int | None = Field(
        None, ge=1, le=1000, description="shots that are under way at once; 4, or 64 where models take turns, if not given"
    )

    def labels(self, family: str, workflow: str) -> tuple[tuple[str, str], ...]:
        """The labels, as sorted (name, value) pairs, that a node must have to run this workflow.

        A placement of the workflow itself replaces the placement of its family.
        """
        return tuple(sorted((self.placement.get(workflow) or self.placement.get(family) or {}).items()))

    def options(self, settings: Settings) -> PoolOptions:
        """The pool's options: GB become bytes, minutes become seconds. TOWER_RESIDENT_MODELS overrides the profile."""
        memory = {("" if kind == "other" else kind): int(gb * 1e9) for kind, gb in self.device_memory_gb.items()}
        resident = settings.resident_models or self.resident_models
        return PoolOptions(settings.devices, resident, memory, self.call_minutes * 60, self.wait_minutes * 60)


def cluster_profile(settings: Settings) -> ClusterProfile:
    """The profile that TOWER_CLUSTER_PROFILE names; the defaults if the setting is not given.

    Raises:
        InputError: no profile has that name, or its file does not fit the type.
    """
    if settings.cluster_profile is None:
        return ClusterProfile(name="defaults")
    return read_yaml(named_file(settings.cluster_profile, PROFILES, "cluster profile", "setting TOWER_CLUSTER_PROFILE"), ClusterProfile)
