"""The takes that a person's word holds.

An approved take is locked: it stands whatever changed since. A picked take goes before later ones, as long as it is accepted and made from
what the shot says. Both bring the takes that they started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.story.episode import Episode, Shot
from pipeline.story.fit import fills
from pipeline.story.rate import exact

from .changes import changes
from .history import Past, Reason, chains_of
from .resolve import StagePlan, inputs_from
from .words import Word, Words

History = Mapping[str, Sequence[Past]]  # stage to its takes


@dataclass(frozen=True, slots=True)
class Held:
    """takes: one for each of the first stages. reasons: what a person is told of them, and of words that hold nothing."""

    takes: tuple[Past, ...] = ()
    reasons: tuple[Reason, ...] = ()


class Holder:
    """Finds the takes of an episode that a person's word holds."""

    def __init__(self, catalog: Catalog, episode: Episode, words: Words):
        self.catalog, self.episode, self.words = catalog, episode, words
        self.rows: dict[str, Row] = chains_of(catalog, words.holding)

    def held(self, shot: Shot, stages: Sequence[StagePlan], history: History, fresh: bool) -> Held:
        """The takes of a shot's first stages that are held.

        Args:
            fresh: only approved takes are.
        """
        told: list[Reason] = []
        for n in reversed(range(1, len(stages) + 1)):
            word = self.words.on_stage.get((shot.id, stages[n - 1].stage))
            if word is None or word.verdict == "retake" or (fresh and word.verdict == "picked"):
                continue
            chain = self._chain(word, stages[:n], history)
            if not chain:
                continue
            why = self._unlocked(word, chain, shot, stages) if word.verdict == "approved" else self._passed_over(word, chain, shot, stages)
            if why is None:
                told += self._differences(chain, shot, stages) if word.verdict == "approved" else []
                # A start whose file is lost is in the way of nothing: the clip that was made from it is there.
                return Held(tuple(take if self._there(take) else take._replace(media_path="") for take in chain), tuple(told))
            if why:
                told.append(Reason(chain[-1].stage, word.verdict, f"{word.take}, which {word.by} {word.verdict}, {why}"))
        return Held((), tuple(told))

    def _chain(self, word: Word, stages: Sequence[StagePlan], history: History) -> tuple[Past, ...]:
        """The take that the word is on, after those that it started from; empty where the catalog has lost one of their rows."""
        chain = [take for take in history[stages[-1].stage] if take.take == word.take]
        for stage in reversed(stages[:-1]):
            row = self.rows.get(chain[0].take) if chain else None
            if row is None:
                return ()
            by_id, media = row["upstream"], row["keyframe_media"]  # takes from before version 3 of the catalog have no `upstream`
            starts = [take for take in history[stage.stage] if (take.take == by_id if by_id else take.media == media)]
            if not starts:
                return ()
            chain.insert(0, starts[-1])
        return tuple(chain)

    def _unlocked(self, word: Word, chain: tuple[Past, ...], shot: Shot, stages: Sequence[StagePlan]) -> str | None:
        """Why an approved take is not locked: as text, "" where a later word says it; None where it is locked."""
        if any(start.review == "retake" and start.said > _microseconds(word.at) for start in chain[:-1]):
            return ""
        if not self._there(chain[-1]):
            return "has lost its file"
        row = self.rows[word.take]
        if row["frames"] and row["fps"]:  # a keyframe has no rate
            have = fills(shot.fit, row["frames"], exact(row["fps"]), self.episode.fps)
            if have is not None and (have := have - shot.first_frame) < shot.frames:
                return f"fills {have} of the shot's {shot.frames} frames; shorten the shot, or set fit: hold or fit: stretch"
        return None

    def _passed_over(self, word: Word, chain: tuple[Past, ...], shot: Shot, stages: Sequence[StagePlan]) -> str | None:
        """Why a picked take does not go before others: as text, "" where a later word says it; None where it does."""
        start: str | None = None
        for take, stage in zip(chain, stages, strict=False):
            other = self.words.on_stage.get((shot.id, stage.stage))
            if other and other.verdict != "retake" and other.take != take.take:
                if other.at > word.at:
                    return ""
                if other.verdict == "approved":
                    return f"does not start from {other.take}, which {other.by} approved"
            if take.outcome != "accepted":
                name = "is" if take is chain[-1] else f"starts from {take.take}, which is"
                return f"{name} rejected" + (f" for {take.labels.replace(',', ', ')}" if take.labels and take.review != "retake" else "")
            if take.inputs != inputs_from(stage, start):
                return "is made from other inputs than the shot has now"
            if not self._there(take):
                return "has lost its file" if take is chain[-1] else f"starts from {take.take}, which has lost its file"
            start = take.media
        return None

    def _differences(self, chain: tuple[Past, ...], shot: Shot, stages: Sequence[StagePlan]) -> list[Reason]:
        """For each take of a locked chain: what it would be made from otherwise today."""
        word = self.words.on_stage[shot.id, chain[-1].stage]
        found, start = [], None
        for take, stage in zip(chain, stages, strict=False):
            texts = []
            if take.inputs != inputs_from(stage, start):
                row = self.rows.get(take.take)
                texts = [text for _, text in changes(row, stage, shot.variation)] if row else []
                texts = texts or [f"what the {stage.stage} is made from changed"]
            other = self.words.on_stage.get((shot.id, stage.stage))
            if other and other.verdict == "approved" and other.take != take.take:
                texts.append(f"{other.by} approved {other.take}")
            if texts:
                found.append(Reason(stage.stage, "approved", f"approved by {word.by}; since it was made, {'; '.join(texts)}"))
            start = take.media
        return found

    def _there(self, take: Past) -> bool:
        return self.catalog.media.has(take.media_path, take.media, take.media_bytes, take.committed)


def _microseconds(at: datetime) -> int:
    """Since 1970, as `Past.said` counts."""
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
