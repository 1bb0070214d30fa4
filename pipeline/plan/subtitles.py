"""The episode's subtitles, as they stand in the cut. A line that cannot be shown as it is written is an error here."""

from __future__ import annotations

from pathlib import Path

from pipeline.story.cues import Cue, cues
from pipeline.story.episode import Episode
from pipeline.story.subtitle import burnt, check_subtitle

from .resolve import font_of
from .sound_file import SoundFacts
from .sounds import seconds_of


def planned_cues(episode: Episode, file: Path, facts: SoundFacts) -> tuple[Cue, ...]:
    """The cues of an episode that shows subtitles; none of one that shows none.

    Args:
        file: the episode's file, from whose folder paths start.

    Raises:
        InputError: a line has no text that can be shown, ends after the movie or is too short; its audio cannot be read; or it is to be
            burnt in, and a letter has no shape or the text does not fit.
    """
    if episode.subtitles == "none":
        return ()
    found = cues(episode, lambda name, where: seconds_of(file, name, where, facts), str(file))
    if episode.subtitles == "burnt":
        font, size = font_of(episode, file), (episode.width, episode.height)
        for one in burnt(episode, found, 0, episode.total_frames):
            lines = " and ".join(cue.where for cue in found if cue.start < one.end and cue.end > one.start)
            check_subtitle(one, font, f"{file}: {lines}", size)
    return found
