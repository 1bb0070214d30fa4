"""Compare an editor's cut with the episode: what changed, per shot, and what the episode's file would have to say.

A cut says of each shot where in its clip it begins, how many frames it has, how it begins, and which shot it follows. What a file
cannot say (a wipe, a gap, a shot at another speed, a clip that is not the episode's) is told, and never invented.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.standing import Row
from pipeline.story.episode import Episode, Shot, Transition
from pipeline.story.errors import InputError
from pipeline.story.fit import Fit, speed
from pipeline.story.rate import exact
from pipeline.story.stages import MOVING

from .edited import OFF, Edit, Piece
from .otio_timeline import moves, speed_of

Fields = dict[str, Any]  # of a shot: name to the value that its file should hold


@dataclass(frozen=True)
class Told:
    """What an editor did with a shot. kind: one of KINDS. shot: its id; "" for what is not the episode's."""

    shot: str
    kind: str
    text: str


KINDS = ("trimmed", "moved", "longer", "gone", "new", "twice", "other take", "by hand")


@dataclass(frozen=True)
class Conformed:
    """told: what changed, in the order of the edit. sequences: id of each sequence that stays, to its shots, in the edit's order.

    fields: shot to what changes in its file. unchanged: how many shots are as they were.
    """

    told: list[Told]
    sequences: dict[str, list[str]]
    fields: dict[str, Fields] = field(default_factory=dict)
    unchanged: int = 0

    def moves(self, episode: Episode) -> bool:
        """Whether shots or sequences stand elsewhere than in the episode, or are gone."""
        return list(self.sequences.items()) != [(sequence.id, [shot.id for shot in sequence.shots]) for sequence in episode.sequences]


def conform(edit: Edit, episode: Episode, clips: Mapping[str, Row], takes: Mapping[str, Row]) -> Conformed:
    """What the edit changes of the episode.

    Args:
        clips: shot to the row of its accepted clip. takes: take to its row, of all takes that the edit names and the catalog has.

    Raises:
        InputError: the edit has no shot of the episode.
    """
    shots = {shot.id: shot for _, shot in episode.shots}
    told = [Told("", "by hand", text) for text in edit.told]
    used: dict[str, Piece] = {}
    for piece in edit.pieces:
        if piece.shot in shots and piece.shot not in used:
            used[piece.shot] = piece
        else:
            told.append(_foreign(piece, used))
    if not used:
        raise InputError(f"none of the shots of {episode.id} is in the edit; is it another episode's?")
    order = _order(list(used), [shot.id for _, shot in episode.shots], clips)
    fields: dict[str, Fields] = {}
    for name, piece in used.items():
        row = takes.get(piece.take) or clips.get(name)
        said, changed = _shown(shots[name], piece, row, episode, first=name == order[0])
        told += said
        told += _take(piece, takes.get(piece.take), clips.get(name))
        if changed:
            fields[name] = changed
    told += [Told(shot, "gone", "is not in the edit") for shot in shots if shot not in order]
    sequences = _sequences(order, episode)
    told += _moved(order, [shot for shot in shots if shot in order])
    for shot, changed, texts in _pinned(sequences, episode):
        told += [Told(shot, "moved", text) for text in texts]
        if changed:
            fields.setdefault(shot, {}).update(changed)
    touched = {one.shot for one in told}
    return Conformed(told, sequences, fields, sum(shot not in touched for shot in shots))


def _foreign(piece: Piece, used: Mapping[str, Piece]) -> Told:
    where = f"at frame {piece.at} of the edit, {piece.frames} frames"
    if piece.shot in used:
        other = used[piece.shot]
        return Told(piece.shot, "twice", f"is used again {where}; an episode shows a shot once, and the use at frame {other.at} counts")
    if piece.gap:
        off = f" ({piece.name} is switched off)" if piece.name else ""
        return Told("", "by hand", f"a gap {where}{off}: an episode has none; what follows moves up")
    name = piece.shot or repr(piece.name)
    return Told("", "new", f"{name} {where}: it is no shot of the episode; add one to the file, or leave it out")


def _order(used: Sequence[str], shots: Sequence[str], clips: Mapping[str, Row]) -> list[str]:
    """The shots that stay, in the edit's order. One that has no clip cannot be in every editor's file: it stays behind the shot before."""
    order = list(used)
    for n, shot in enumerate(shots):
        if shot not in order and shot not in clips:
            before = [other for other in shots[:n] if other in order]
            order.insert(order.index(before[-1]) + 1 if before else 0, shot)
    return order


def _shown(shot: Shot, piece: Piece, row: Row | None, episode: Episode, first: bool) -> tuple[list[Told], Fields]:
    """What changed of the part that is shown and of how the shot begins, and the fields that say it.

    Args:
        row: of the take. first: whether the shot is the episode's first.
    """
    told, fields = list[Told](), Fields()
    if row is None or piece.gap:
        fields |= {"frames": piece.frames} if piece.frames != shot.frames else {}
        told += [Told(shot.id, "trimmed", f"frames {shot.frames} → {piece.frames}; it has no clip in the edit")] if fields else []
    else:
        said = _part(shot, piece, row, episode)
        if isinstance(said, str):
            told.append(Told(shot.id, "by hand", said))
        elif fields := {name: value for name, value in said.items() if value != getattr(shot, name)}:
            changed = ", ".join(f"{name} {getattr(shot, name)} → {value}" for name, value in fields.items())
            told.append(_longer(shot, said, row, episode, changed) or Told(shot.id, "trimmed", changed))
    later = fields.get("first_frame", shot.first_frame) - shot.first_frame
    if later and (shot.dialogue or shot.audio):
        told.append(Told(shot.id, "by hand", f"begins {later:+} frames in its clip; what is heard counts from its new beginning"))
    dissolve = 0 if first else piece.dissolve
    if dissolve != shot.transition.frames:
        fields["transition"] = Transition.model_construct(type="dissolve" if dissolve else "cut", frames=dissolve)
        told.append(Told(shot.id, "trimmed", f"begins with {_beginning(dissolve)}, not with {_beginning(shot.transition.frames)}"))
    return told, fields


def _part(shot: Shot, piece: Piece, row: Row, episode: Episode) -> Fields | str:
    """The fields that show this part of the clip; or why none do."""
    fit = _fit(shot, piece, row, episode)
    if fit is None:
        return f"runs at {piece.speed:.4g} of its speed and shows a part of its clip; a file says `fit: stretch` of a whole clip only"
    if fit == "stretch":
        return {"fit": fit, "first_frame": 0, "frames": piece.frames}
    as_fit = shot.model_copy(update={"fit": fit})
    first = piece.first / (speed_of(episode, as_fit, row) if piece.moving else 1)
    if abs(first - round(first)) > OFF or round(first) < 0:
        return f"begins {float(first):.2f} frames into its clip; a file says whole frames from the clip's beginning on"
    have = moves(episode, as_fit, row)
    if piece.held and piece.moving and abs(first + piece.moving - have) > 1:
        return f"holds frame {round(first) + piece.moving - 1} of its clip; a file says that of the last one only, by `fit: hold`"
    if piece.held and not shot.first_frame + shot.frames > have:  # else the timeline holds the last frame already
        fit = "hold"
    return {"fit": fit, "first_frame": round(first), "frames": piece.frames}


def _fit(shot: Shot, piece: Piece, row: Row, episode: Episode) -> Fit | None:
    """How a file would say the piece's speed, to less than half a frame at its end; None if it cannot."""
    if not piece.moving:
        return "trim" if shot.fit == "stretch" else shot.fit

    def runs(fit: Fit) -> bool:
        wanted = speed(fit, piece.frames, row["frames"], exact(row["fps"]), episode.fps)
        return abs(piece.speed / wanted - 1) * piece.frames < 0.5 and (fit != "stretch" or (abs(piece.first) < 1 and not piece.held))

    fits: tuple[Fit, ...] = (shot.fit, "trim", "stretch", "on_twos", "on_threes")
    return next((fit for fit in fits if runs(fit)), None)


def _longer(shot: Shot, said: Fields, row: Row, episode: Episode, changed: str) -> Told | None:
    have, wanted = moves(episode, shot.model_copy(update=said), row), said["first_frame"] + said["frames"]
    if said["fit"] in ("hold", "stretch") or wanted <= have:
        return None
    needed = f"its clip has {have} of the {wanted} frames that it needs: {wanted - have} too few"
    return Told(shot.id, "longer", f"{changed}; {needed}. A workflow that makes more renders it anew; `fit: hold` needs none")


def _beginning(dissolve: int) -> str:
    return f"a dissolve of {dissolve} frames" if dissolve else "a cut"


def _take(piece: Piece, cut: Row | None, row: Row | None) -> Iterator[Told]:
    """Args: cut: the row of the piece's take, where the catalog has it. row: of the take that stands."""
    if not piece.take or row is None or piece.take in (row["take"], row["upstream"]):  # a clip's finish is the same frames
        return
    if cut is None or cut["upstream"] != row["take"]:
        episode, shot, stage, take = (*piece.take.split("/"), "", "", "")[:4]
        named = f"--stage {stage} " if stage != "clip" else ""
        picked = stage in MOVING and shot == piece.shot
        command = f"`tower review {episode} {shot} {named}--pick {take}`" if picked else "a clip of the shot"
        yield Told(piece.shot, "other take", f"shows {piece.take}, and {row['take']} is what stands; {command} takes it")


def _moved(order: Sequence[str], before: Sequence[str]) -> Iterator[Told]:
    """The fewest shots whose move gives the edit's order: all but a longest run of shots that follow each other as before."""
    place = {shot: n for n, shot in enumerate(before)}
    ends, chains = list[int](), list[list[str]]()  # for each length, the run that ends earliest
    for shot in order:
        n = bisect_left(ends, place[shot])
        chain = [*(chains[n - 1] if n else []), shot]
        ends[n:n + 1], chains[n:n + 1] = [place[shot]], [chain]
    stays = set(chains[-1]) if chains else set()
    for n, shot in enumerate(order):
        if shot not in stays:
            yield Told(shot, "moved", f"stands after {order[n - 1]} now" if n else "stands first now")


def _sequences(order: Sequence[str], episode: Episode) -> dict[str, list[str]]:
    """The sequences in the edit's order, each with its shots.

    A sequence is where most of its shots follow each other; of equal runs, the first. A shot elsewhere joins the sequence before it.
    """
    own = {shot.id: sequence.id for sequence, shot in episode.shots}
    runs: list[list[str]] = []
    for shot in order:
        if runs and own[runs[-1][0]] == own[shot]:
            runs[-1].append(shot)
        else:
            runs.append([shot])
    longest = {own[run[0]]: run for run in sorted(reversed(runs), key=len)}
    sequences: dict[str, list[str]] = {}
    for run in runs:
        home = own[run[0]] if longest[own[run[0]]] is run else next(reversed(sequences), None)
        if home is None:  # the first run of all belongs to the sequence that follows
            home = next(own[other[0]] for other in runs if longest[own[other[0]]] is other)
        sequences.setdefault(home, []).extend(run)
    return sequences


def _pinned(sequences: Mapping[str, Sequence[str]], episode: Episode) -> Iterator[tuple[str, Fields, list[str]]]:
    """For each shot in another sequence than before: what it takes along, so that its picture stays what it was; and what is told of it."""
    kinds = {sequence.id: sequence for sequence in episode.sequences}
    for sequence, shot in episode.shots:
        now = next((kinds[name] for name, shots in sequences.items() if shot.id in shots), sequence)
        if now is sequence:
            continue
        fields, texts = Fields(), [f"goes from sequence {sequence.id} to {now.id}"]
        for name in ("location", "time"):
            mine, old, new = (getattr(x, name) for x in (shot, sequence, now))
            if not mine and old != new:
                if old:
                    fields[name] = old
                elif new:
                    texts.append(f"takes on the {name} {new!r} of {now.id}, and renders again")
        yield shot.id, fields, texts
