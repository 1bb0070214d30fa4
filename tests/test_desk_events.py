"""Events of the desk: a listener gets all that came, in order, whatever is cut, killed or tidied meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.care import compact, vacuum
from catalog.store import Catalog
from pipeline.api.services import events
from pipeline.api.services.events import Hub, as_id, from_id
from pipeline.api.tables import WATCHED, Tables

from .service import Served, serving
from .test_catalog import row

Told = list[tuple[str, str, dict[str, Any]]]  # id, name and data of each event


@pytest.fixture
def catalog(seeded: Path, tmp_path: Path) -> Catalog:
    return Catalog.open(shutil.copytree(seeded, tmp_path / "catalog-data"))


def take(catalog: Catalog, number: int, episode: str = "E01") -> str:
    """Commit one take. Gives its id."""
    name = f"{episode}/SH0010/clip/v{number:03d}"
    catalog.append("takes", [row(number, take=name, episode=episode, outcome="accepted", labels=[], findings="[]")])
    return name


def parsed(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Id, name and data of each block, as a browser reads them; name and data are empty for a block that only tells an id."""
    last, name, data = "", "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            last = value
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line and last:
            yield last, name, data
            name, data = "", ""


def takes_in(told: Told) -> list[str]:
    return [data["take"] for _, name, data in told if name == "take"]


async def heard(hub: Hub, after: str, episode: str | None, until: Callable[[Told, str], bool]) -> tuple[Told, str]:
    """Listen until something is true of the events and the last id. Gives both."""
    told: Told = []
    last = after
    async with aclosing(hub.listen(after, episode)) as stream:  # type: ignore[type-var]
        async with asyncio.timeout(60):
            async for chunk in stream:
                for last, name, data in parsed(chunk.decode().split("\n")):
                    if name:
                        told.append((last, name, json.loads(data)))
                if until(told, last):
                    return told, last
    raise AssertionError("the stream ended")


def hub_of(catalog: Catalog) -> Hub:
    return Hub(catalog, Tables(catalog.place))


async def caught_up(hub: Hub, after: str, episode: str | None = None) -> Told:
    """What a listener that was cut off is told first."""
    return (await heard(hub, after, episode, lambda _, last: last == as_id(hub.told)))[0]


def test_a_listener_is_told_every_take_once_and_in_order(catalog):
    async def story() -> tuple[list[str], Told]:
        hub, made = hub_of(catalog), []
        listening = asyncio.create_task(heard(hub, "", None, lambda told, _: len(takes_in(told)) == 9))
        await asyncio.sleep(0)
        for first in (1, 4, 7):
            made += [take(catalog, number) for number in range(first, first + 3)]
            await hub.look()
            await asyncio.sleep(0)
        return made, (await listening)[0]

    made, told = asyncio.run(story())
    assert takes_in(told) == made
    assert all(data["text"].endswith("accepted") and data["shot"] == "SH0010" for _, _, data in told)


def test_a_listener_that_was_cut_off_anywhere_misses_nothing(catalog):
    """Each id that a listener can have seen, and each service that it may come back to."""

    async def story() -> None:
        hub = hub_of(catalog)
        listening = asyncio.create_task(heard(hub, "", None, lambda told, _: len(takes_in(told)) == 8))
        await asyncio.sleep(0)
        before = as_id(hub.told)
        made = [take(catalog, number) for number in range(1, 5)]
        await hub.look()
        made += [take(catalog, number) for number in range(5, 9)]
        await hub.look()
        told, _ = await listening
        new = hub_of(catalog)  # a service that was started anew
        for here in (hub, new):
            assert takes_in(await caught_up(here, before)) == made
            for seen, (last, _, _) in enumerate(told, 1):
                again = takes_in(await caught_up(here, last))
                assert made[seen:] == again[len(again) - len(made[seen:]) :], "all that it had not seen, and perhaps some again"

    asyncio.run(story())


def test_an_id_is_given_only_when_all_before_it_was_told(catalog):
    """Else a listener that is cut off a second time, while it is told what it missed, would never hear the rest."""

    async def first_ids(hub: Hub, after: str) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        async with aclosing(hub.listen(after, None)) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                found += parsed(chunk.decode().split("\n"))
                if found:
                    return found
        return found

    before = as_id(Tables(catalog.place).seen.versions)
    made = [take(catalog, number) for number in range(1, 4)]
    hub = hub_of(catalog)
    found = asyncio.run(first_ids(hub, before))
    ids = [last for last, name, _ in found if name == "take"]
    assert len(ids) == len(made) and ids[:-1] == [before, before] and ids[-1] == as_id(hub.told)


def test_a_listener_of_one_episode_hears_of_no_other_and_comes_back_to_its_place(catalog):
    async def story() -> None:
        hub = hub_of(catalog)
        before = as_id(hub.told)
        take(catalog, 1, "E02")
        mine = take(catalog, 1)
        take(catalog, 2, "E02")
        await hub.look()
        told = await caught_up(hub, before, "E01")
        assert takes_in(told) == [mine]
        assert await caught_up(hub, as_id(hub.told), "E01") == []

    asyncio.run(story())


def test_two_browsers_see_the_same(catalog):
    async def story() -> list[Told]:
        hub = hub_of(catalog)
        both = [asyncio.create_task(heard(hub, "", None, lambda told, _: len(told) == 5)) for _ in range(2)]
        await asyncio.sleep(0)
        for number in range(1, 6):
            take(catalog, number)
            await hub.look()
        return [told for told, _ in await asyncio.gather(*both)]

    one, other = asyncio.run(story())
    assert one == other


@pytest.mark.parametrize("garbage", ["x", "1.2.3", "-1", "9" * 200, ".".join(["99999999999"] * len(WATCHED)), "٣." * 8 + "٣", "1e3", "NaN"])
def test_an_id_of_nobody_reads_everything_anew(catalog, garbage):
    assert from_id(garbage) is None
    assert [name for _, name, _ in asyncio.run(caught_up(hub_of(catalog), garbage))] == ["reset"]


def test_an_id_of_the_future_reads_everything_anew(catalog):
    """As of a catalog that was put back from a copy."""
    hub = hub_of(catalog)
    future = as_id(tuple(version + 1 for version in hub.told))
    assert [name for _, name, _ in asyncio.run(caught_up(hub, future))] == ["reset"]


def test_compacting_tells_nothing_and_loses_nothing(catalog):
    before = as_id(Tables(catalog.place).seen.versions)
    made = [take(catalog, number) for number in range(1, 6)]
    compact(catalog, ["takes"])
    made.append(take(catalog, 6))
    assert takes_in(asyncio.run(caught_up(hub_of(catalog), before))) == made


def test_what_a_vacuum_deleted_is_told_as_reset(catalog):
    before = as_id(Tables(catalog.place).seen.versions)
    for number in range(1, 6):
        take(catalog, number)
    compact(catalog, ["takes"])
    after = as_id(Tables(catalog.place).seen.versions)
    vacuum(catalog, timedelta(0), dry_run=False)
    assert [name for _, name, _ in asyncio.run(caught_up(hub_of(catalog), before))] == ["reset"]
    assert asyncio.run(caught_up(hub_of(catalog), after)) == [], "who has seen all has missed nothing"


def test_a_log_that_was_cleaned_while_nobody_looked_is_followed_again(catalog):
    tables = Tables(catalog.place)
    for number in range(1, 4):
        take(catalog, number)
    compact(catalog, ["takes"])  # with a checkpoint, which stands for the entries before it
    log = catalog.place.folder / "takes" / "_delta_log"
    for entry in sorted(log.glob("*.json"))[:-1]:
        entry.unlink()
    before = tables.at("E01", "takes")
    newest = tables.look().versions[WATCHED.index("takes")]
    assert log.joinpath(f"{newest:020}.json").is_file() and tables.at("E01", "takes") != before, "whatever is kept of takes is read anew"


def test_a_listener_that_stops_reading_is_told_to_read_everything_anew(catalog, monkeypatch):
    monkeypatch.setattr(events, "KEPT", 5)

    async def story() -> Told:
        hub = hub_of(catalog)
        stream = hub.listen("", None)
        for _ in range(2):
            await anext(stream)
        for number in range(1, 8):
            take(catalog, number)
            await hub.look()
        assert len(hub.events) == 5, "what waits for slow listeners is bounded"
        told = [(last, name, json.loads(data)) for last, name, data in parsed((await anext(stream)).decode().split("\n")) if name]
        await stream.aclose()  # type: ignore[attr-defined]
        return told

    assert [name for _, name, _ in asyncio.run(story())] == ["reset"]


def test_a_burst_of_takes_is_told_as_reset_and_costs_no_memory(catalog):
    before = as_id(Tables(catalog.place).seen.versions)
    catalog.append("takes", [row(number, outcome="accepted", labels=[], findings="[]") for number in range(events.KEPT + 1)])
    assert [name for _, name, _ in asyncio.run(caught_up(hub_of(catalog), before))] == ["reset"]


def test_every_kind_of_row_is_told_in_the_order_of_its_time(catalog):
    before, at = as_id(Tables(catalog.place).seen.versions), datetime.now(UTC)
    seconds = iter(range(9))
    later = lambda: at + timedelta(seconds=next(seconds))  # noqa: E731
    story = {"at": later(), "by": "me", "name": "e.yaml", "digest": "", "title": "A test", "files": {}}
    catalog.append("stories", [{"episode": "E01"} | story])
    catalog.append("runs", [{"run": "r", "event": "started", "at": later(), "episode": "E01", "shots": 3, "stale": 2}])
    catalog.append("takes", [row(1, at=later(), outcome="accepted", labels=[], findings="[]")])
    catalog.append("reviews", [{"take": "E01/SH0010/clip/v001", "at": later(), "episode": "E01", "verdict": "approved", "note": "", "by": "me"}])
    catalog.append("controls", [{"at": later(), "run": "r", "episode": "E01", "action": "pause", "by": "me"}])
    told = asyncio.run(caught_up(hub_of(catalog), before))
    assert [name for _, name, _ in told] == ["story", "run", "take", "review", "change"]
    assert told[-1][2] == {"tables": ["controls"]}


def listen(served: Served, after: str, until: Callable[[Told], bool]) -> tuple[Told, str]:
    """Read a real stream until something is true of its events, and cut it there. Gives the events and the last id."""
    told: Told = []
    last = after
    with served.client.stream("GET", "/events", headers={"last-event-id": after} if after else {}) as stream:
        for last, name, data in parsed(stream.iter_lines()):
            if name:
                told.append((last, name, json.loads(data)))
            if until(told):
                break
    return told, last


def test_a_listener_misses_nothing_though_the_service_is_killed(catalog, tmp_path):
    with serving(tmp_path) as served:
        _, last = listen(served, "", lambda _: True)
        made = [take(catalog, number) for number in range(1, 4)]
        told, last = listen(served, last, lambda told: len(takes_in(told)) == 3)
        assert takes_in(told) == made
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    while_away = [take(catalog, number) for number in range(4, 7)]
    with serving(tmp_path) as served:
        told, _ = listen(served, last, lambda told: len(takes_in(told)) >= 3)
        assert takes_in(told)[-3:] == while_away


def test_a_service_with_open_streams_ends_when_it_is_told_to(catalog, tmp_path):
    with serving(tmp_path) as served, served.client.stream("GET", "/events") as stream:
        assert next(parsed(stream.iter_lines()))
        served.process.terminate()
        assert served.process.wait(30) is not None
    assert "Traceback" not in served.log.read_text()
