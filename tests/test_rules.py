"""From measures to a verdict, without a pixel."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gates.rules import Profile, Rule, judge, no_numbers
from gates.verdict import LABELS


def found(rule: Rule, measures: dict[str, float], *declared: str, gate: Any = "video", **more: Any) -> Any:
    return judge(gate, measures, Profile("p", (rule,), (rule,)), declared, **more)


def test_values_that_are_no_numbers_are_told_by_where_they_came_about_and_nothing_is_told_of_numbers():
    assert no_numbers("") == {} and "in the latents" in no_numbers("latents")["non_finite"]


BELOW, ABOVE = Rule("frozen", "reach", below=2.0), Rule("noise", "grain", above=2.0)
DIFFERS = Rule("wrong_frame_count", "frames", differs_from="expected_frames")


@pytest.mark.parametrize(
    ("rule", "value", "is_found"),
    [(BELOW, 1.9, True), (BELOW, 2.0, False), (BELOW, 2.1, False), (ABOVE, 1.9, False), (ABOVE, 2.0, False), (ABOVE, 2.1, True)],
)
def test_a_threshold_itself_is_no_fault(rule, value, is_found):
    verdict = found(rule, {rule.measure: value})
    assert bool(verdict.findings) == is_found
    if is_found:
        (finding,) = verdict.findings
        assert (finding.label, finding.measure, finding.value, finding.threshold, finding.outcome) == (rule.label, rule.measure, value, 2.0, "fail")


def test_what_must_be_exact_is_found_on_either_side():
    for frames, faults in ((40.0, 1), (41.0, 0), (42.0, 1)):
        assert len(found(DIFFERS, {"frames": frames, "expected_frames": 41.0}).findings) == faults
    assert found(DIFFERS, {"frames": 40.0, "expected_frames": 41.0}).findings[0].threshold == 41.0


def test_a_rule_whose_measure_is_missing_is_told_and_never_passed_over():
    assert DIFFERS.looks_at() == ("frames", "expected_frames") and BELOW.looks_at() == ("reach",)
    half = found(DIFFERS, {"frames": 40.0})
    assert half.findings == () and half.not_looked == ("wrong_frame_count",)
    two = Profile("p", (), (BELOW, replace(BELOW, measure="hold"), ABOVE, DIFFERS))
    verdict = judge("video", {"reach": 3.0}, two)
    assert verdict.not_looked == tuple(label for label in LABELS if label in ("noise", "wrong_frame_count"))
    assert len(verdict.not_looked) == 2, "a label is looked for where one of its rules could look"
    assert judge("video", {"reach": 3.0, "hold": 3.0, "grain": 1.0, "frames": 1.0, "expected_frames": 1.0}, two).not_looked == ()


def test_a_gate_asks_its_own_rules():
    both = Profile("p", (BELOW,), (ABOVE,))
    measures = {"reach": 1.0, "grain": 3.0}
    assert (judge("image", measures, both).failures, judge("video", measures, both).failures) == (("frozen",), ("noise",))
    assert judge("image", measures, both).gate == "image"


def test_a_declaration_softens_and_the_softest_one_holds():
    rule = replace(BELOW, declared={"hold": "warn", "fade": "pass"})
    outcomes = [found(rule, {"reach": 1.0}, *said).outcome for said in ((), ("night",), ("hold",), ("fade",), ("hold", "fade"))]
    assert outcomes == ["fail", "fail", "warn", "pass", "pass"]
    warned = found(rule, {"reach": 1.0}, "hold")
    assert (warned.warnings, warned.failures) == (("frozen",), ())
    assert found(rule, {"reach": 1.0}, "fade").findings == ()
    assert found(replace(BELOW, outcome="warn"), {"reach": 1.0}).outcome == "warn"


def test_measures_are_judged_as_they_are_stored():
    verdict = found(ABOVE, {"grain": 2.00000004})
    assert verdict.findings == () and verdict.measures == {"grain": 2.0}
    assert found(ABOVE, {"grain": 2.0000004}).measures == {"grain": 2.0}
    assert found(ABOVE, {"grain": 2.000001}).measures == {"grain": 2.000001} and found(ABOVE, {"grain": 2.000001}).findings


def test_a_finding_names_the_frames_and_the_words_of_its_measure_or_its_label():
    assert found(BELOW, {"reach": 1.0}).findings[0].frames == ()
    assert found(BELOW, {"reach": 1.0, "reach_at": 0.0}).findings[0].frames == (0,)
    assert found(BELOW, {"reach": 1.0, "reach_at": 4.0, "reach_until": 9.0, "grain_at": 7.0}).findings[0].frames == (4, 9)
    assert found(BELOW, {"reach": 1.0}).findings[0].text == ""
    assert found(BELOW, {"reach": 1.0}, texts={"frozen": "by label"}).findings[0].text == "by label"
    assert found(BELOW, {"reach": 1.0}, texts={"frozen": "by label", "reach": "by measure"}).findings[0].text == "by measure"


def test_a_converted_video_is_told_by_every_profile_and_rejected_by_none():
    verdict = found(BELOW, {"reach": 3.0, "hdr": 1.0})
    assert (verdict.warnings, verdict.failures, verdict.not_looked) == (("undecodable",), (), ())
    assert found(BELOW, {"reach": 3.0, "hdr": 0.0}).findings == () == found(BELOW, {"reach": 3.0, "hdr": 1.0}, gate="image").findings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label": "ugly", "below": 1}, "'ugly' is not a gate label"),
        ({}, "exactly one of"),
        ({"below": 1, "above": 1}, "exactly one of"),
        ({"above": 1, "differs_from": "x"}, "exactly one of"),
        ({"below": math.nan}, "finite"),
        ({"above": math.inf}, "finite"),
    ],
)
def test_a_rule_that_cannot_judge_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Rule(**({"label": "black", "measure": "dark"} | given))
    assert Rule("black", "dark", below=0).below == 0, "zero is a threshold"
