"""Evidence in numbers, and the decisions that cite it: what a benchmark says, what it suffices for, who decided what."""

from __future__ import annotations

from dataclasses import replace
from getpass import getuser
from typing import Any

import pytest

from catalog.standing import Demands, Figures, Pairing, figures, name_of, pair, shortfalls, standing, wilson
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.promotions import alias, promote, retire
from pipeline.registry.workflows import Registry
from pipeline.story.errors import InputError
from pipeline.story.settings import load_settings

from .test_registry import NOW, cells, decided

# --- figures ------------------------------------------------------------------------------------------------------------


def test_the_bounds_of_a_share_are_wilsons():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(1, 1) == pytest.approx((0.20654, 1.0), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27754), abs=1e-5)
    assert wilson(41, 42) == pytest.approx((0.87678, 0.99578), abs=1e-5)
    assert wilson(5, 10, 1.0) == pytest.approx((0.34924, 0.65076), abs=1e-5)


def test_a_share_is_never_below_none_or_above_all():
    assert all(wilson(0, n)[0] >= 0.0 and wilson(n, n)[1] <= 1.0 for n in range(1, 60)), "however numbers are rounded"


def test_figures_are_of_judged_takes_and_of_what_is_known_of_them():
    rows = [row | {"device_seconds": float(n), "encode_seconds": 2.0 * n, "gate_seconds": 3.0 * n} for n, row in enumerate(cells(18, 21))]
    rows[5] |= {"device": "another card", "peak_memory_bytes": 3_000_000_000, "encode_seconds": None}
    rows[19] |= {"outcome": "error", "labels": [], "device": None, "peak_memory_bytes": None}
    rows[20] |= {"labels": ["noise", "frozen"]}
    rows.append(rows[0] | {"outcome": "no_keyframe", "device_seconds": 999.0, "device": "a third", "labels": ["black"]})
    found = figures(rows)
    assert (found.benchmark, found.cells, found.missing, found.judged, found.passed) == ("b1", 21, -1, 21, 18)
    assert found.labels == {"frozen": 2, "error": 1, "noise": 1} and next(iter(found.labels)) == "frozen"
    assert (found.seconds_p50, found.seconds_p95) == (10.0, 19.0) and (found.gate_p50, found.gate_p95) == (30.0, 57.0)
    assert found.encode_p50 == pytest.approx(21.0) and found.encode_p95 == pytest.approx(38.1)
    assert (found.peak_memory_bytes, found.device) == (3_000_000_000, "a card, another card")
    assert found.clips_per_hour == pytest.approx(3600 * 18 / 210) and found.rate == 18 / 21
    assert (found.low, found.high) == wilson(18, 21)
    assert found.sentence() == f"18 of 21 first takes accepted (95 % bounds {found.low:.3f} to {found.high:.3f})"


def test_figures_of_one_take_and_of_none():
    one = figures(cells(1, 1))
    assert (one.seconds_p50, one.seconds_p95, one.encode_p50, one.gate_p95) == (2.0, 2.0, 0.5, 1.0)
    nothing = figures([cells(1, 1)[0] | {"outcome": "no_keyframe"}])
    assert (nothing.judged, nothing.rate, nothing.seconds_p50, nothing.seconds_p95, nothing.clips_per_hour) == (0, 0.0, 0.0, 0.0, 0.0)
    assert (nothing.peak_memory_bytes, nothing.device, nothing.labels, nothing.low, nothing.high) == (0, "", {}, 0.0, 1.0)
    assert figures(cells(1, 1, device_seconds=None)).clips_per_hour == 0.0
    two = figures([row | {"device_seconds": float(n)} for n, row in enumerate(cells(2, 2))])
    assert (two.seconds_p50, two.seconds_p95) == (0.5, 0.95)


def test_a_demand_that_is_met_to_the_point_is_met():
    found: Figures = figures(cells(42))
    exact = Demands(found.low, found.seconds_p95, found.peak_memory_bytes)
    assert shortfalls(found, exact) == [] == shortfalls(found, Demands(found.low))
    (rate,) = shortfalls(found, replace(exact, pass_rate=found.low + 0.001))
    (slow,) = shortfalls(found, replace(exact, device_seconds_p95=1.99))
    (large,) = shortfalls(found, replace(exact, peak_memory_bytes=1.9e9))
    assert "42 of 42 first takes accepted" in rate and f"must reach {found.low + 0.001:.3f}" in rate
    assert slow == "p95 is 2.00 s on the device; at most 1.99 s are allowed"
    assert large == "peak memory is 2.00 GB; at most 1.90 GB are allowed"
    assert shortfalls(replace(found, missing=1), exact) == ["1 of 42 cells have no result yet"]


def test_a_pairing_counts_the_cells_of_both_and_is_worse_only_beyond_chance():
    new, old = cells(20, 30), cells(30, 30)
    new[25] |= {"outcome": "accepted"}
    old[25] |= {"outcome": "rejected"}
    old[26] |= {"outcome": "rejected"}
    old[0] |= {"outcome": "no_keyframe"}
    found = pair(new[:-1], old)
    assert (found.both, found.only_new, found.only_old, found.neither) == (19, 1, 7, 1)
    assert found.p == pytest.approx(2 * (1 + 8) / 2**8) and not found.is_worse
    assert [Pairing(0, 0, n, 0, p).is_worse for n, p in ((6, 0.049), (6, 0.05), (6, 0.051))] == [True, False, False]
    assert not Pairing(0, 6, 0, 0, 0.001).is_worse and not Pairing(0, 3, 3, 0, 0.001).is_worse
    assert pair(cells(24, 30), cells(30, 30)).is_worse and not pair(cells(25, 30), cells(30, 30)).is_worse


def test_a_row_names_its_workflow_whatever_its_table():
    assert name_of({"workflow": "w", "version": 2}) == "w@2" == name_of({"workflow": "w", "workflow_version": 2, "version": 3})


def test_the_latest_benchmark_of_todays_suite_and_gates_makes_the_candidate():
    rows = {"good": cells(42, benchmark="good"), "bad": cells(31, benchmark="bad"), "old": cells(42, benchmark="old", suite_digest="was")}
    rows |= {"gates": cells(42, profile="anime#0"), "gone": cells(42, suite="none")}

    def of(*names: str) -> tuple[str, tuple[str, ...]]:
        found = standing(NOW, [], rows.__getitem__, names)
        return found.status, found.evidence

    assert of("good", "bad") == ("candidate", ("good",)) == of("bad", "good", "old", "gates", "gone")
    for others in (("old",), ("gates",), ("gone",)):
        assert of(*others) == ("experimental", others)
        assert standing(NOW, [], rows.__getitem__, others).why == "no benchmark of exactly these settings, files and libraries"
    assert standing(NOW, [], rows.__getitem__, ["bad"]).why.startswith("benchmark bad: 31 of 42 first takes")


def test_a_standing_cites_its_evidence_and_only_proven_renders():
    def of(*ledger: dict[str, Any]) -> Any:
        return standing(NOW, ledger, lambda _: cells(41), ["b1"])

    assert of(decided("promote")).evidence == ("b1",) and of(decided("promote")).may_render
    assert of(decided("archive", evidence=None)).evidence == () and of(decided("deprecate")).evidence == ("b1",)
    assert not any(of(*ledger).may_render for ledger in ([], [decided("archive")], [decided("promote"), decided("deprecate", 2)]))
    changed = standing(replace(NOW, profile="anime#2"), [decided("promote")], lambda _: cells(41), ["b1"])
    assert (changed.status, changed.evidence, changed.may_render) == ("stale", ("b1",), False)
    assert changed.why == "it was proven by b1, but its gate profile is anime#2, was anime#1"
    two = standing(replace(NOW, digest="x", libraries={"av": "2"}), [decided("promote")], lambda _: cells(41, libraries={"torch": "1", "av": "1"}), [])
    assert two.why.endswith("but av is 2, was 1, torch is None, was 1")
    assert "a model file changed" in standing(replace(NOW, digest="x"), [decided("promote")], lambda _: cells(41, libraries=None), []).why


def test_one_cell_is_evidence_that_the_latest_standing_cites():
    easy, one = replace(NOW, suites={"demo": ("suite", Demands(0.1))}), cells(1, 1)

    def of(now: Any, *ledger: dict[str, Any]) -> tuple[str, str]:
        found = standing(now, ledger, lambda _: one, ["b1"])
        return found.status, found.why

    assert of(easy)[0] == "candidate" and "meets suite demo" in of(easy)[1] and of(easy, decided("promote"))[0] == "proven"
    for now, words in (
        (replace(easy, digest="x", libraries={}), "torch is None, was 2.13.0"),
        (replace(easy, suites={"demo": ("other", Demands(0.1))}), "suite demo changed"),
        (replace(easy, suites={}), "suite demo is not here any more"),
        (replace(easy, profile="anime#2"), "is anime#2, was anime#1"),
    ):
        assert of(now, decided("promote")) == ("stale", of(now, decided("promote"))[1]) and words in of(now, decided("promote"))[1]


# --- decisions ----------------------------------------------------------------------------------------------------------

OLD, NEW = "animatediff_16_demo@1", "animatediff_16_demo@2"


@pytest.fixture
def registry(tmp_path) -> Registry:
    settings = load_settings().model_copy(update={"catalog_uri": str(tmp_path / "catalog"), "models_dir": tmp_path / "models"})
    return Registry(open_catalog(settings), settings)


def rival(registry: Registry, lost: int, **more: Any) -> list[dict[str, Any]]:
    """A benchmark `mine` of the older version, on the cells of the newer one's evidence, `lost` of which it alone does not pass."""
    (cited,) = [r["evidence"] for r in registry.ledger if r["action"] == "promote" and name_of(r) == NEW]
    theirs = registry.cells[cited] = [r | {"outcome": "accepted"} for r in registry.cells[cited]]
    mine = {"benchmark": "mine", "version": 1, "digest": registry.prepare(registry.resolve(OLD, "")).digest} | more
    registry.cells["mine"] = [r | mine | {"outcome": "rejected" if n < lost else "accepted"} for n, r in enumerate(theirs)]
    registry.suites[theirs[0]["suite"]] = theirs[0]["suite_digest"], Demands(0.5)
    return registry.cells["mine"]


def test_a_version_that_is_worse_on_the_same_cells_is_not_promoted(registry):
    rival(registry, 8)
    with pytest.raises(InputError, match=r"animatediff_16_demo@2 is better on the same cells: 8 pass only there, 0 only here \(p 0\.008\)"):
        promote(registry, OLD, "mine", "Mika")
    rival(registry, 5)
    row = promote(registry, OLD, "mine", "Mika")
    wanted = {"action": "promote", "workflow": "animatediff_16_demo", "version": 1, "by": "Mika", "evidence": "mine"}
    assert {name: row[name] for name in wanted} == wanted and row["digest"] == registry.prepare(registry.resolve(OLD, "")).digest
    assert wanted.items() <= Registry(registry.catalog, registry.settings).ledger[-1].items()


def test_promotions_by_one_cell_are_compared_too(registry):
    rows = rival(registry, 0)
    (theirs,) = [r["evidence"] for r in registry.ledger if r["action"] == "promote" and name_of(r) == NEW]
    for cells_ in (rows, registry.cells[theirs]):
        del cells_[1:]
    rows[0]["cells"] = 1
    registry.suites[rows[0]["suite"]] = rows[0]["suite_digest"], Demands(0.1)
    assert promote(registry, OLD, "mine", "Mika")["evidence"] == "mine"


@pytest.mark.parametrize("other", ["suite_digest", "workflow", "version", "action", "evidence"])
def test_it_is_compared_with_promotions_of_other_versions_on_the_same_suite_only(registry, other):
    mine = rival(registry, 8)
    if other == "suite_digest":
        for row in mine:
            row["suite_digest"] = "another"
        registry.suites[mine[0]["suite"]] = "another", Demands(0.5)
    else:
        value = {"workflow": "another", "version": 1, "action": "deprecate", "evidence": "gone"}[other]
        registry.ledger[:] = [r | {other: value} if name_of(r) == NEW else r for r in registry.ledger]
    assert promote(registry, OLD, "mine", "")["by"] == getuser()


def test_a_promotion_names_what_does_not_fit(registry):
    for more, words in (
        ({"version": 2}, "is of animatediff_16_demo@2"),
        ({"workflow": "ltx"}, "is of ltx@1"),
        ({"digest": "x"}, "was of other model files or libraries"),
    ):
        del rival(registry, 0, **more)[1:]  # one cell is a benchmark too
        with pytest.raises(InputError, match=words):
            promote(registry, OLD, "mine", "Mika")
    rows = rival(registry, 0)
    del rows[1:]
    for suites in ({}, {rows[0]["suite"]: ("changed", Demands(0.5))}):
        registry.__dict__["suites"] = suites
        with pytest.raises(InputError, match="is not as it was for benchmark mine"):
            promote(registry, OLD, "mine", "Mika")
    rival(registry, 0)
    registry.suites[rows[0]["suite"]] = rows[0]["suite_digest"], Demands(1.0)
    with pytest.raises(InputError, match="does not suffice: 42 of 42"):
        promote(registry, OLD, "mine", "Mika")
    del registry.cells["mine"][1:]
    with pytest.raises(InputError, match=r"there is no benchmark none; of animatediff_16_demo@1 there are .*mine"):
        promote(registry, OLD, "none", "Mika")
    with pytest.raises(InputError, match=r"checkpoint .* does not exist"):
        promote(registry, "ltx_video_2b@1", "none", "Mika")


def test_an_end_needs_a_reason_and_may_cite_a_benchmark(registry):
    for why in ("", "  \n"):
        with pytest.raises(InputError, match=r"archive animatediff_16_demo@2: say --why"):
            retire(registry, "archive", NEW, why, "Mika")
    with pytest.raises(InputError, match="there is no benchmark none"):
        retire(registry, "deprecate", NEW, "slow", "Mika", "none")
    assert retire(registry, "deprecate", NEW, "slow", "Mika")["evidence"] is None
    benchmark = next(iter(registry.cells))
    row = retire(registry, "archive", NEW, "slow", "", benchmark)
    assert (row["action"], row["evidence"], row["why"], row["by"], row["version"]) == ("archive", benchmark, "slow", getuser(), 2)


def test_an_alias_stands_for_a_name_or_for_one_version(registry):
    assert alias(registry, "best", "animatediff_16_demo", "Mika")["version"] is None
    assert alias(registry, "first", OLD, "Mika")["version"] == 1
    again = Registry(registry.catalog, registry.settings)
    assert (again.aliases["best"], again.aliases["first"]) == ("animatediff_16_demo", OLD)
    with pytest.raises(InputError, match="a workflow has that name"):
        alias(registry, "ltx_video_2b", NEW, "Mika")
    with pytest.raises(InputError, match="alias x: unknown workflow"):
        alias(registry, "x", "nothing_like_it", "Mika")
