"""Stored measures are enough: a changed threshold judges every catalogued take again, without media, models or Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Rendered, refused, takes_of, tower

PROFILE = Path(__file__).parent.parent / "configs" / "gates" / "anime.yaml"


@pytest.fixture
def catalogued(rendered: Rendered, tmp_path: Path) -> Path:
    """A copy of a finished render's catalog, its media deleted: nothing here can look at a pixel."""
    shutil.copytree(rendered.cwd / "catalog-data", tmp_path / "catalog-data")
    shutil.rmtree(tmp_path / "catalog-data" / "media")
    shutil.copy(rendered.file, tmp_path / "episode.yaml")
    return tmp_path


def profile(folder: Path, measure: str, rule: str) -> Path:
    """The anime profile with one rule replaced."""
    lines = [rule if f"measure: {measure}," in line else line for line in PROFILE.read_text().splitlines()]
    file = folder / "mine.yaml"
    file.write_text("\n".join(lines).replace("name: anime", "name: mine"))
    return file


def test_the_profile_that_judged_a_take_judges_it_the_same_again(catalogued):
    done = tower("rejudge", "E90", "--json", cwd=catalogued)
    assert done.code == 0 and json.loads(done.out) == [], done.out + done.err


def test_a_take_keeps_what_its_shot_declared_and_which_profile_judged_it(rendered):
    for take in rendered.takes:
        assert take["declared"] == (["hold"] if take["shot"] == "SH0020" else [])
        assert take["profile"].startswith("anime#") and take["warnings"] == []


def test_a_changed_threshold_shows_which_verdicts_flip_and_records_them_only_when_asked(catalogued, rendered):
    stricter = profile(catalogued, "reach", "  - {label: frozen, measure: reach, below: 250}")
    before = takes_of(catalogued)
    clips = {t["take"] for t in before if t["stage"] == "clip" and t["outcome"] == "accepted"}
    shown = json.loads(tower("rejudge", "E90", "--profile", stricter, "--json", cwd=catalogued).out)
    assert {c["take"] for c in shown if (c["was"], c["now"]) == ("accepted", "rejected")} == clips
    assert takes_of(catalogued) == before

    assert tower("rejudge", "episode.yaml", "--profile", stricter, "--apply", cwd=catalogued).code == 0
    after = {t["take"]: t for t in takes_of(catalogued)}
    assert all(after[c]["outcome"] == "rejected" and after[c]["labels"] == ["frozen"] for c in clips)
    assert all(after[c]["profile"].startswith("mine#") for c in clips)

    assert tower("rejudge", "--profile", "anime", "--apply", cwd=catalogued).code == 0
    drop = ("findings",)
    assert [{k: v for k, v in t.items() if k not in drop} for t in takes_of(catalogued)] == [
        {k: v for k, v in t.items() if k not in drop} for t in before
    ]


def test_what_a_shot_declares_now_counts_where_its_file_is_given(catalogued):
    held = profile(catalogued, "reach", "  - {label: frozen, measure: reach, below: 250, declared: {hold: warn}}")
    file = catalogued / "episode.yaml"
    by_id = json.loads(tower("rejudge", "E90", "--profile", held, "--json", cwd=catalogued).out)
    assert {c["now"] for c in by_id if "SH0010/clip" in c["take"]} == {"rejected"}
    assert {c["now"] for c in by_id if "SH0020/clip" in c["take"]} == {"accepted"}
    file.write_text(file.read_text().replace("title: A test}", "title: A test, declares: [hold]}"))
    assert tower("rejudge", file, "--profile", held, "--apply", cwd=catalogued).code == 0
    (clip,) = [t for t in takes_of(catalogued) if t["shot"] == "SH0010" and t["stage"] == "clip" and t["outcome"] == "accepted"]
    assert (clip["warnings"], clip["declared"]) == (["frozen"], ["hold"])


def test_rejudging_what_is_not_there_is_one_sentence(catalogued, tmp_path_factory):
    refused(tower("rejudge", "E77", cwd=catalogued), "no judged takes of episode E77")
    refused(tower("rejudge", "E90", "--profile", "animal", cwd=catalogued), "no gate profile 'animal'", "did you mean 'anime'")
    refused(tower("rejudge", cwd=tmp_path_factory.mktemp("empty")), "no judged takes")


def test_a_profile_with_a_fault_is_one_sentence_with_its_line(catalogued):
    file = profile(catalogued, "reach", "  - {label: frozen, measure: reech, below: 3}")
    refused(tower("rejudge", "--profile", file, cwd=catalogued), "mine.yaml", "unknown measure 'reech'", "did you mean 'reach'")
    file = profile(catalogued, "reach", "  - {label: frosen, measure: reach, below: 3}")
    refused(tower("rejudge", "--profile", file, cwd=catalogued), "mine.yaml", "'frosen' is not a gate label")
    file = profile(catalogued, "reach", "  - {label: frozen, measure: reach, bellow: 3}")
    refused(tower("rejudge", "--profile", file, cwd=catalogued), "mine.yaml", "unknown field 'bellow'", "did you mean 'below'")
    file = profile(catalogued, "reach", "  - {label: frozen, measure: reach, below: 3, declared: {holds: warn}}")
    refused(tower("rejudge", "--profile", file, cwd=catalogued), "mine.yaml", "holds")
