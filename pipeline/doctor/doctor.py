"""`tower doctor`: what this machine or cluster can run, and how to get what is missing. It starts nothing and writes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pyarrow as pa
from deltalake.exceptions import DeltaError

from catalog.migrate import found_version
from catalog.place import Place
from catalog.schema import VERSION
from catalog.store import Catalog, CatalogError
from cluster.look import Sight
from pipeline.registry.workflows import Registry
from pipeline.render.needs import ModelNeeds
from pipeline.story.cluster_profile import ClusterProfile, cluster_profile
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import FileDigests
from pipeline.story.settings import Settings
from pipeline.story.stages import NEEDED

from .machine import Notice, count, devices, disk, on_paper, prometheus, store, versions
from .workflows import Examiner, Prospect, Unmade, memory, model, seen, verdict

BLOCKING = ("devices", "catalog", "disk")  # if one of these checks finds a problem, nothing can render


def examine(settings: Settings) -> list[Notice]:
    """Every finding, in the order in which a render would meet it. The last finding says whether anything can render.

    Raises:
        InputError: a setting or the cluster profile is invalid.
    """
    profile = cluster_profile(settings)
    registry, specs, of_catalog = _read(settings, profile)
    sight, of_devices = devices(settings, profile)
    examiner = Examiner(on_paper(sight, profile.options(settings)), profile, specs)
    workflows = examiner.all(seen(registry))
    found = [*versions(sight), *of_devices, _profile(profile), *(memory(w) for w in workflows if w.seen.ready), *map(model, workflows)]
    found += [*disk(settings, sight), *store(sight, len(examiner.pool.fleet.posts)), of_catalog, prometheus()]
    return [*found, *map(verdict, workflows), _chosen(found, workflows, examiner, sight)]


def can_render(findings: list[Notice]) -> bool:
    """Whether at least one keyframe workflow and one clip workflow can render here."""
    return findings[-1].state != "problem"


def _profile(profile: ClusterProfile) -> Notice:
    says = profile.model_dump(exclude_defaults=True, exclude={"name", "description"})
    told = ", ".join(f"{name} {value}" for name, value in says.items()) or "everything is measured"
    return Notice("profile", "ok", f"cluster profile {profile.name}: {told}")


def _read(settings: Settings, profile: ClusterProfile) -> tuple[Registry, ModelNeeds, Notice]:
    """The registry, the model needs, and a finding about the catalog. Without a readable catalog, they are those of a new catalog."""
    place = settings.place
    try:
        catalog, finding = _as_it_is(place)
        if catalog is not None:
            return *_known(catalog, settings, profile), finding
    except InputError:
        raise
    except (CatalogError, OSError, DeltaError, pa.ArrowException, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        do = "`tower catalog verify` says what is wrong, `tower catalog repair` sets damaged files aside"
        if not place.is_local:
            do = "see that its address, its keys and the network are right: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
        finding = Notice("catalog", "problem", f"catalog {place} cannot be read: {told}", do)
    return *_known(cast(Catalog, Unmade()), settings, profile), finding


def _as_it_is(place: Place) -> tuple[Catalog | None, Notice]:
    """The catalog, and a finding about it. None if there is no catalog of this version: the doctor neither creates nor upgrades one."""
    if place.is_local:
        there = (place.folder / "takes" / "_delta_log").is_dir()
    else:
        there = place.files.get_file_info("takes/_delta_log").type.name == "Directory"
    had = found_version(place) if there else 0
    if had > VERSION:
        told = f"catalog {place} has version {had}, and this Tower knows versions up to {VERSION}"
        return None, Notice("catalog", "problem", told, "use the Tower that wrote it, or set TOWER_CATALOG_URI to another place")
    if had == VERSION and (workflows := Catalog(place, had).dataset("workflows").count_rows()):
        catalog = Catalog(place, had)
        takes = catalog.dataset("takes").count_rows()
        told = f"catalog {place} has version {had}, {count(workflows, 'workflow')} and {count(takes, 'take')}"
        return catalog, Notice("catalog", "ok", told)
    if had and had < VERSION:
        told = f"catalog {place} has version {had}, and the next render brings it to {VERSION}"
        return None, Notice("catalog", "note", f"{told}; until then workflows are those of this project's files")
    told = f"no catalog at {place} yet: the first render makes it, with this project's workflows and the evidence for them"
    return None, Notice("catalog", "note", told)


def _known(catalog: Catalog, settings: Settings, profile: ClusterProfile) -> tuple[Registry, ModelNeeds]:
    """Read all that the doctor needs from the catalog. A damaged table raises its error here, not later."""
    registry = Registry(catalog, settings, FileDigests(_digests(settings)))
    assert registry.versions is not None and registry.ledger is not None and registry.cells is not None
    return registry, ModelNeeds.of(catalog, profile)


def _digests(settings: Settings) -> Path:
    """Path of the cache of model digests; /dev/null if it cannot be read. `registry.digest_memory` would create its folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tower"
    memory = (settings.place.folder if settings.place.is_local else cache) / "model-digests.json"
    return memory if os.access(memory, os.R_OK) else Path(os.devnull)


def _chosen(found: list[Notice], workflows: list[Prospect], examiner: Examiner, sight: Sight) -> Notice:
    blocking = [f for f in found if f.state == "problem" and f.check in BLOCKING]
    ready = [w for w in workflows if w.can in ("ready", "takes turns")]
    missing = [stage for stage in NEEDED if stage not in {w.seen.workflow.stage for w in ready}]
    if blocking:
        names = " and ".join(dict.fromkeys(f.check for f in blocking))
        return Notice("chosen", "problem", f"nothing can render here, because of the problem above: {names}", "mend that first")
    if missing:
        told = f"nothing can render here: no {' and no '.join(missing)} workflow is ready"
        return Notice("chosen", "problem", told, "see above what each workflow lacks; the demo's need only what comes with Tower")
    demo = {w.seen.workflow.stage for w in ready if w.seen.workflow.checkpoint.startswith("demo:")}
    number = len(examiner.pool.fleet.posts)
    models = "models take turns on the devices" if any(w.can == "takes turns" for w in ready) else "models stay on the devices"
    live = examiner.live_shots([w.seen for w in ready])
    told = f"{count(number, 'logical device' if sight.logical else 'GPU')}, {models}, up to {count(live, 'shot')} under way at once"
    return Notice("chosen", "ok", f"{told}; the demo can{'' if demo.issuperset(NEEDED) else 'not'} render")
