"""Catalogs of older versions open and upgrade; one of a newer version is refused."""

from __future__ import annotations

import json
import multiprocessing
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from catalog.care import verify
from catalog.damage import Checked
from catalog.migrate import found_version
from catalog.place import Place
from catalog.schema import MIGRATIONS, TABLES, VERSION
from catalog.store import Catalog, CatalogError
from catalog.views import all_takes, episodes

from .test_catalog import row

OLD = {int(p.name.split("-")[1].split(".")[0]): p for p in (Path(__file__).parent / "catalogs").glob("version-*.tar.gz")}


def unpack(version: int, folder: Path) -> Path:
    with tarfile.open(OLD[version]) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_there_is_a_catalog_of_every_version():
    assert sorted(OLD) == list(range(1, VERSION + 1))


@pytest.mark.parametrize("version", sorted(OLD))
def test_a_catalog_of_each_version_opens_upgrades_and_keeps_every_row(tmp_path, version):
    folder = unpack(version, tmp_path / "catalog")
    before = DeltaTable(str(folder / "takes")).to_pyarrow_table().sort_by("at").to_pylist()
    assert found_version(Place.of(folder)) == version and len(before) == 2
    catalog = Catalog.open(folder)
    assert catalog.was_version == version and found_version(catalog.place) == VERSION
    after = catalog.rows("takes")
    maps = {"measures", "reference_files"}
    assert [{k: r[k] for k in b.keys() - maps} for r, b in zip(after, before, strict=True)] == [
        {k: b[k] for k in b.keys() - maps} for b in before
    ]
    assert [dict(b["measures"]) for b in before] == [r["measures"] for r in after]
    for name, table in TABLES.items():
        upgraded = DeltaTable(str(folder / name))
        assert sorted(f.name for f in upgraded.schema().fields) == sorted(table.schema.names)
        assert table.properties.items() <= upgraded.metadata().configuration.items()
    assert list(verify(catalog.place, Checked())) == [] and len(all_takes(catalog)) == 2
    catalog.append("takes", [row(9, parameters="{}", shot_variation=1, reference_files={"a.png": "f" * 64})])
    assert catalog.rows("takes")[-1]["reference_files"] == {"a.png": "f" * 64}
    assert episodes(catalog)[-1]["episode"] == "E01"
    assert looked_up_by(folder / "takes") == {"episode"}


def looked_up_by(table: Path) -> set[str]:
    """Columns of which the newest commit says what is least in its file."""
    newest = max((table / "_delta_log").glob("*.json"))
    (added,) = [json.loads(line)["add"] for line in newest.read_text().splitlines() if "add" in json.loads(line)]
    return set(json.loads(added["stats"])["minValues"])


@pytest.mark.parametrize("version", sorted(OLD))
def test_an_old_catalog_still_plans_and_tells(tmp_path, here, version):
    unpack(version, tmp_path / "catalog-data")
    assert here("status", "E90").code == 0
    assert here("takes", "E90", "--json").code == 0
    assert here("workflows", "list").code == 0


def test_a_catalog_of_a_newer_version_is_refused_with_a_sentence(tmp_path, here):
    catalog = Catalog.open(tmp_path / "catalog-data")
    newer = {"version": VERSION + 1, "at": datetime.now(UTC), "tower": "9.9", "host": "h"}
    write_deltalake(catalog.place.table("migrations"), pa.Table.from_pylist([newer], schema=MIGRATIONS.schema), mode="append")
    with pytest.raises(CatalogError, match=f"has version {VERSION + 1}, this Tower knows versions up to {VERSION}"):
        Catalog.open(tmp_path / "catalog-data")
    done = here("status")
    assert done.code == 2 and "use the Tower that wrote it" in done.err


def open_it(folder: str, results) -> None:
    try:
        results.put(len(Catalog.open(folder).rows("takes")))
    except Exception as error:  # noqa: BLE001 - told to the test
        results.put(repr(error))


@pytest.mark.parametrize("version", [0, 1])
def test_several_drivers_may_open_a_new_or_an_old_catalog_at_once(tmp_path, version):
    folder = tmp_path / "catalog"
    if version:
        unpack(version, folder)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    drivers = [context.Process(target=open_it, args=(str(folder), results)) for _ in range(4)]
    for d in drivers:
        d.start()
    assert [results.get(timeout=60) for _ in drivers] == [2 * version] * 4
    for d in drivers:
        d.join(30)
    assert [f.name for f in DeltaTable(str(folder / "takes")).schema().fields] == TABLES["takes"].schema.names
