"""The committed evidence supports what docs/gates.md promises, under the profiles as they are now."""

from __future__ import annotations

import pytest

from benchmarks import gate_report
from benchmarks.gate_bases import bases
from benchmarks.gates import Case, load, manifest, run_case
from pipeline.story.gate_profile import PROFILES, load_profile

PROMISED = {
    0.98: ("undecodable", "black", "frozen", "wrong_frame_count", "wrong_fps", "wrong_size", "wrong_first_frame", "cut"),
    0.95: ("flicker", "strobe", "colour_drift", "exposure_drift", "blur", "bars"),
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Every clip and still of the test half, judged again from its measures."""
    return load("test")


def recall(rows: list[dict], label: str) -> float:
    mine = [r for r in rows if r["gate"] == "video" and r["label"] == label and r["over_floor"]]
    assert len(mine) >= 10, label
    if label == "undecodable":  # H.264 has no checksums: what was damaged may decode, and must be rejected all the same
        return sum(r["outcome"] == "fail" for r in mine) / len(mine)
    return sum(label in r["failures"] for r in mine) / len(mine)


@pytest.mark.parametrize(("least", "label"), [(least, label) for least, labels in PROMISED.items() for label in labels])
def test_planted_faults_of_the_test_half_are_found(rows, least, label):
    assert recall(rows, label) >= least


def test_good_and_hard_clips_of_the_test_half_are_not_rejected(rows):
    mine = [r for r in rows if r["gate"] == "video" and r["kind"] != "fault" and r["source"] in gate_report.DRAWN and not r["declared"]]
    assert len(mine) >= 150
    assert sum(r["outcome"] == "fail" for r in mine) / len(mine) <= 0.02


def test_no_artwork_is_in_both_halves():
    tune, test = ({(b.source, b.artwork) for b in bases(half)} for half in ("tune", "test"))
    assert not tune & test


def test_the_evidence_beside_a_threshold_names_the_run_that_is_committed():
    run = load("tune")[0]["run"]
    for path in PROFILES.glob("*.yaml"):
        profile = load_profile(path.stem)
        for rule in (*profile.image, *profile.video):
            measured_by = "benchmarks.finish_gate" if rule.measure.startswith("source_") else run
            assert rule.evidence.startswith((f"{measured_by}: ", "exact: ")), (path.stem, rule)


def test_a_case_is_made_judged_and_compared_with_other_tools():
    cases = manifest("tune", 1, demo=False)
    (black,) = [c for c in cases if c.fault and c.fault.name == "black frames" and c.severity == 12]
    row = run_case(black)
    assert row and "black" in row["failures"] and row["peers"]["ffmpeg blackdetect, 2 frames"] == 1
    plain = run_case(Case("video", black.base))
    assert plain and plain["outcome"] != "fail" and plain["peers"]["ffmpeg blackdetect, 2 frames"] == 0


@pytest.mark.parametrize(("found", "of"), [(9, 10), (0, 40), (40, 40), (55, 56)])
def test_wilsons_bounds_are_the_shares_that_the_count_is_1_96_deviations_away_from(found, of):
    for bound in gate_report.wilson(found, of):
        assert (found / of - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / of, abs=1e-9)
