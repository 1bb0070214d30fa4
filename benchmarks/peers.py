"""What well-known tools' rules say of a clip, at their default thresholds: columns beside our gates'.

Rules are run where they are installed (libavfilter inside PyAV, PySceneDetect) and written anew where they are short and
need no weights (VBench, Curator). Where each was read:

* ffmpeg freezedetect (n=0.001, d=2 s): libavfilter/vf_freezedetect.c. Compares with the frame at which the freeze began.
* ffmpeg blackdetect (pix_th=0.10, pic_th=0.98, d=2 s): libavfilter/vf_blackdetect.c. Only its log applies d; the metadata
  has every black run, so d is applied here, as there: to the first black frame until the first other or the last frame.
  The second column is not a default: d = 2 frames, since 2 s is longer than most black inserts.
* ffmpeg scdet (threshold=10): libavfilter/vf_scdet.c. All in https://github.com/FFmpeg/FFmpeg and
  https://ffmpeg.org/ffmpeg-filters.html
* ffmpeg photosensitivity (frames=30, threshold=1): libavfilter/vf_photosensitivity.c. It starts from a black picture, so
  that every bright clip would begin with a flash: the first frame is shown 30 times more here. bypass=1 leaves the frames
  as they are; when the threshold is first passed does not depend on it.
* PySceneDetect detect-content (threshold=27, min_scene_len=15): scenedetect/detectors/content_detector.py in
  https://github.com/Breakthrough/PySceneDetect
* VBench temporal flickering, 1 - mean |F(t) - F(t+1)| / 255: vbench/temporal_flickering.py in
  https://github.com/Vchitect/VBench. A score, not a verdict, and meant for static shots. FLICKER_CUTOFF is ours: the lowest
  mean of a published image-to-video model (SEINE-512x320, 96.72 %) in table 9 of https://arxiv.org/abs/2506.15564, which
  lists VBench scores; the lowest text-to-video one in its table 8 is 97.68 %. VBench's own "Min" (0.6293,
  scripts/constant.py) is what it normalises by: hardly any clip lies below.
* Curator: nemo_curator/stages/video/filtering/motion_vector_backend.py in https://github.com/NVIDIA-NeMo/Curator, the same
  rule as cosmos_curate/pipelines/video/filtering/motion in https://github.com/nvidia-cosmos/cosmos-curate. H.264 motion
  vectors at 2 frames a second, as lengths over (height + width). Curator drops a clip if either column says so. Its "patch"
  is one bilinear sample every 256 pixels, not a mean. Clips under 256 pixels or without vectors, which it drops without
  measuring, get no verdict.

Not here: VBench's dynamic degree (vbench/dynamic_degree.py) and static filter (static_filter.py) need RAFT's weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain as joined
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags2
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.motionvectors import MotionVectors
from av.video.stream import VideoStream
from scenedetect import ContentDetector, SceneManager, StatsManager, VideoOpenFailure, open_video

from gates.decode import ffmpeg_path

FREEZE, BLACK, BLACK_2, SCDET, FLASHES = (
    "ffmpeg freezedetect",
    "ffmpeg blackdetect",
    "ffmpeg blackdetect, 2 frames",
    "ffmpeg scdet",
    "ffmpeg photosensitivity",
)
CONTENT, FLICKER = "PySceneDetect content", "VBench temporal flickering"
MOTION_MEAN, MOTION_PATCH = "Curator motion mean", "Curator motion patch"
PEERS = (FREEZE, BLACK, BLACK_2, SCDET, FLASHES, CONTENT, FLICKER, MOTION_MEAN, MOTION_PATCH)

BLACK_SECONDS, SCDET_SCORE, CONTENT_SCORE, FLICKER_CUTOFF = 2.0, 10.0, 27.0, 0.9672
MOTION_MEAN_MIN, MOTION_PATCH_MIN, MOTION_SIDE, MOTION_FPS = 0.00098, 0.000001, 256, 2.0
TICK = 1e-4  # seconds: metadata has six digits

Chain = tuple[tuple[str, str], ...]
DETECTORS: Chain = (("freezedetect", ""), ("blackdetect", ""), ("scdet", ""))
FLASH_FRAMES = 30
FLASH_DETECTOR: Chain = (("loop", f"loop={FLASH_FRAMES}:size=1:start=0"), ("photosensitivity", "bypass=1"))
TIMED: Chain = (("freezedetect", ""), ("blackdetect", ""), ("signalstats", ""), ("scdet", ""))


@dataclass(frozen=True)
class PeerVerdict:
    """value: longest run in seconds (freezedetect, blackdetect), highest score of a frame (scdet, PySceneDetect),
    highest badness, where 1 is the threshold (photosensitivity), or the rule's own number (VBench, Curator)."""

    peer: str
    label: str  # the fault of ours that the rule claims to find
    found: bool
    value: float


def judge(path: Path) -> list[PeerVerdict]:
    """One verdict a peer, in the order of PEERS; none of a file that cannot be decoded."""
    try:
        return [*_detectors(path), _flashes(path), _content(path), _flicker(path), *_motion(path)]
    except (av.FFmpegError, cv2.error, VideoOpenFailure, OSError, ValueError):
        return []


def ffmpeg_chain_seconds(path: Path) -> float:
    """CPU seconds of one decode through freezedetect, blackdetect, signalstats and scdet, all in one thread."""
    start = time.process_time()
    for _ in _filtered(path, TIMED):
        pass
    return time.process_time() - start


def _open(file: InputContainer) -> VideoStream:
    if not file.streams.video or file.streams.video[0].codec_context is None:
        raise ValueError("no video stream, or of a codec that is not known")
    stream = file.streams.video[0]
    stream.thread_type = "NONE"
    return stream


def _filtered(path: Path, chain: Chain) -> Iterator[tuple[float, dict[str, str]]]:
    """Time and metadata of each frame that leaves the filters."""
    with av.open(ffmpeg_path(path)) as file:
        stream = _open(file)
        graph = Graph()
        graph.threads = 1
        nodes = [graph.add_buffer(template=stream), *(graph.add(name, args or None) for name, args in chain), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        for frame in joined(file.decode(stream), (None,)):
            graph.vpush(frame)
            while True:
                try:
                    out = graph.vpull()
                except (av.BlockingIOError, av.EOFError):
                    break
                yield out.time or 0.0, dict(out.metadata)


def _detectors(path: Path) -> list[PeerVerdict]:
    with av.open(ffmpeg_path(path)) as file:
        rate = _open(file).average_rate or Fraction(24)
    frames = list(_filtered(path, DETECTORS))
    if not frames:
        raise ValueError("no frames")
    freeze = _longest(frames, "lavfi.freezedetect.freeze_start", "lavfi.freezedetect.freeze_end")
    black = _longest(frames, "lavfi.black_start", "lavfi.black_end")
    score = max(float(tags.get("lavfi.scd.score", 0)) for _, tags in frames)
    return [
        PeerVerdict(FREEZE, "frozen", freeze is not None, freeze or 0.0),
        PeerVerdict(BLACK, "black", black is not None and black >= BLACK_SECONDS - TICK, black or 0.0),
        PeerVerdict(BLACK_2, "black", black is not None and black >= 2 / rate - TICK, black or 0.0),
        PeerVerdict(SCDET, "cut", score >= SCDET_SCORE, score),
    ]


def _longest(frames: list[tuple[float, dict[str, str]]], start: str, end: str) -> float | None:
    """Seconds of the longest run, or None; a run that is still open at the end lasts until the last frame."""
    longest: float | None = None
    since: float | None = None
    for now, tags in frames:
        if start in tags:
            since = float(tags[start])
        if since is not None and (end in tags or now == frames[-1][0]):
            longest = max(longest or 0.0, float(tags.get(end, now)) - since)
            since = None
    return longest


def _flashes(path: Path) -> PeerVerdict:
    frames = list(_filtered(path, FLASH_DETECTOR))[FLASH_FRAMES + 1 :]
    badness = max((float(tags["lavfi.photosensitivity.badness"]) for _, tags in frames), default=0.0)
    return PeerVerdict(FLASHES, "strobe", badness >= 1, badness)


def _content(path: Path) -> PeerVerdict:
    stats = StatsManager()
    manager = SceneManager(stats)
    manager.add_detector(ContentDetector(threshold=CONTENT_SCORE))
    count = manager.detect_scenes(open_video(str(path)))
    key = [ContentDetector.FRAME_SCORE_KEY]
    score = max((stats.get_metrics(i, key)[0] for i in range(count) if stats.metrics_exist(i, key)), default=0.0)
    return PeerVerdict(CONTENT, "cut", bool(manager.get_scene_list()), float(score))


def _flicker(path: Path) -> PeerVerdict:
    differences: list[float] = []
    before: np.ndarray | None = None
    with av.open(ffmpeg_path(path)) as file:
        for frame in file.decode(_open(file)):
            now = frame.to_ndarray(format="rgb24")
            if before is not None:
                differences.append(float(cv2.absdiff(now, before).mean()))
            before = now
    score = 1 - float(np.mean(differences)) / 255 if differences else 1.0
    return PeerVerdict(FLICKER, "flicker", score < FLICKER_CUTOFF, score)


def _motion(path: Path) -> list[PeerVerdict]:
    """Curator's two numbers; nothing where it would not measure."""
    fields: list[np.ndarray] = []
    with av.open(ffmpeg_path(path)) as file:
        stream = _open(file)
        stream.codec_context.flags2 |= Flags2.export_mvs
        seconds = (file.duration or 0) // av.time_base or 30
        step = max(1, round(float(stream.average_rate or 30) / MOTION_FPS))
        wanted = max(10, round(MOTION_FPS * seconds * 0.5))  # of the clip's first half, but at least 10
        for index, frame in enumerate(file.decode(stream)):
            if min(frame.width, frame.height) < MOTION_SIDE or len(fields) == wanted:
                break
            if index % step == 0:
                vectors = frame.side_data.get("MOTION_VECTORS")
                if isinstance(vectors, MotionVectors):
                    fields.append(_lengths(vectors.to_ndarray(), frame.height, frame.width))
    if not fields:
        return []
    mean = np.stack(fields).mean(axis=0)
    patch = float(cv2.resize(mean, None, fx=1 / MOTION_SIDE, fy=1 / MOTION_SIDE).min())
    return [
        PeerVerdict(MOTION_MEAN, "frozen", float(mean.mean()) < MOTION_MEAN_MIN, float(mean.mean())),
        PeerVerdict(MOTION_PATCH, "frozen", patch < MOTION_PATCH_MIN, patch),
    ]


def _lengths(vectors: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel's motion over (height + width), 0 where its block has no vector; of two vectors the later counts."""
    field = np.zeros((height, width), np.float32)
    lengths = np.hypot(vectors["motion_x"], vectors["motion_y"]) / vectors["motion_scale"] / (height + width)
    w, h, x, y = (vectors[name].astype(int) for name in ("w", "h", "dst_x", "dst_y"))
    tops, lefts = y - h // 2, x - w // 2
    for top, bottom, left, right, length in zip(tops, tops + h, lefts, lefts + w, lengths, strict=True):
        field[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = length
    return field
