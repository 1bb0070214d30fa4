"""LTX-Video 2B at 768x512, 121 frames: one clip stage by stage, and ten in a row as a render makes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from os import cpu_count
from pathlib import Path

import numpy as np

from actors.loading import peak_memory_bytes, reset_peak_memory
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipSettings, TextSettings
from benchmarks import full_size
from benchmarks.gpu import writer
from benchmarks.gpu.report import NO_AV, Bench, Figure, has_av
from benchmarks.models import Checkpoints, first_frame, random_checkpoints
from benchmarks.subjects import WORDS, Subject, ltx_clip
from benchmarks.timing import flops_of, in_turns, matrix_rate, seconds_of, stages_of


def checkpoints(bench: Bench) -> Checkpoints:
    """The full-size checkpoints, built where no earlier step has; without PyAV no keyframe can be compressed first."""
    found = random_checkpoints(bench.work, bench.device, bench.tiny)
    return found if has_av() else replace(found, ltx=replace(found.ltx, keyframe_crf=None))


def base(distilled: ClipSettings, tiny: bool) -> ClipSettings:
    """How a checkpoint that was not distilled is sampled: 20 steps with guidance 3."""
    return replace(distilled, timesteps=(), num_inference_steps=2 if tiny else 20, guidance_scale=3.0)


def one_clip(bench: Bench) -> Iterator[Figure]:
    """Built, loaded, encoded, then a clip: distilled, which comes first as it is what people use, and base."""
    yield Figure("built and written", seconds_of(lambda: full_size.ltx_video(bench.work, bench.device, bench.tiny)), "s")
    found = checkpoints(bench)
    started = time.perf_counter()
    model = LtxVideoModel("ltx", found.ltx_video, found.ltx, bench.device)
    yield Figure("load transformer and autoencoder", time.perf_counter() - started, "s", "from the machine's disk")
    started = time.perf_counter()
    encoder = PromptEncoder("t5", found.ltx_video, TextSettings(found.max_tokens), bench.device)
    yield Figure("load T5-XXL", time.perf_counter() - started, "s")
    medians, _ = in_turns({"encode": lambda: encoder.encode([WORDS])}, 3)
    yield Figure("encode a prompt", medians["encode"], "s")
    keyframe = first_frame(found.ltx.width, found.ltx.height)
    for kind, settings, until in (
        ("distilled", found.ltx, bench.share(0.35)),
        ("base", base(found.ltx, bench.tiny), bench.share(0.8)),
    ):
        model.settings = settings
        yield from _timed(kind, ltx_clip(model, encoder, keyframe), bench, until)
    yield from _written_and_judged(found.ltx) if has_av() else [NO_AV]


def _timed(kind: str, subject: Subject, bench: Bench, until: float) -> Iterator[Figure]:
    reset_peak_memory()
    medians, first = in_turns({"product": subject.product, "plain": subject.plain}, 1 if bench.tiny else 3, until)
    yield Figure(f"{kind}: a clip", medians["product"], "s", f"{subject.title}; the first call {first['product']:.2f} s")
    yield Figure(
        f"{kind}: plain diffusers loop", medians["plain"], "s", "in turns with it; encodes its prompt each time, gives PIL pictures"
    )
    yield Figure(f"{kind}: peak memory, T5 beside it", peak_memory_bytes() / 1e9, "GB")
    spent = stages_of(subject.product, subject.parts)
    for stage, seconds in spent.items():
        yield Figure(f"{kind}: {stage}", seconds, "s", "one call, waited for at each part")
    total, inside = flops_of(subject.product, subject.denoiser)
    rate = matrix_rate(bench.device, subject.denoiser.dtype)  # type: ignore[arg-type]
    yield Figure(f"{kind}: arithmetic of a clip", total / 1e12, "TFLOP", f"{inside / 1e12:,.4g} of it denoises")
    yield Figure(f"{kind}: denoising", inside / spent["denoise"] / rate, "of the matrix rate", f"which is {rate / 1e12:,.4g} TFLOP/s here")


def _written_and_judged(s: ClipSettings) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="tower-gpu-") as folder:
        writer.prepare(folder, s)
        encode, whole = writer.write_and_judge()
    note = "drawn frames: random weights draw noise, which no encoder is made for"
    yield Figure("write mp4", encode, "s", note)
    yield Figure("decode it and gate 2", whole - encode, "s", note)


def many_clips(bench: Bench) -> Iterator[Figure]:
    """Clips one after another. As in a render, other processes write and judge them, out of shared memory, while the next is made."""
    found = checkpoints(bench)
    model = LtxVideoModel("ltx", found.ltx_video, found.ltx, bench.device)
    encoder = PromptEncoder("t5", found.ltx_video, TextSettings(found.max_tokens), bench.device)
    subject = ltx_clip(model, encoder, first_frame(found.ltx.width, found.ltx.height))
    subject.product()
    count, workers = (2, 1) if bench.tiny else (10, max(1, min(8, (cpu_count() or 2) - 1)))
    made, seconds = _overlapped(subject, found.ltx, count, workers, bench.share(0.5))
    how = f"{workers} processes write and judge" if has_av() else "PyAV is not here: copied to other processes, neither written nor judged"
    yield Figure("clips an hour", made / seconds * 3600, "", f"{made} clips in {seconds:.2f} s; {how}")
    made, seconds = _plain_loop(subject, found.ltx, count, bench.share(0.8))
    how = "each written before the next is begun, not judged" if has_av() else "PyAV is not here: not written"
    yield Figure("clips an hour, plain diffusers loop", made / seconds * 3600, "", f"{made} clips in {seconds:.2f} s; {how}")


def _overlapped(subject: Subject, s: ClipSettings, count: int, workers: int, until: float) -> tuple[int, float]:
    """How many clips were made and judged, and the seconds until the last was."""
    results: list[Future[tuple[float, float]]] = []
    with (
        tempfile.TemporaryDirectory(prefix="tower-gpu-") as folder,
        # Not forked: this process has a GPU, which no child may inherit.
        ProcessPoolExecutor(workers, get_context("spawn"), writer.prepare, (folder, s)) as pool,
    ):
        list(pool.map(writer.ready, range(4 * workers)))  # imported and drawn before the clock starts
        began = time.perf_counter()
        for seed in range(count):
            (frames,) = subject.product(seed)
            shared = SharedMemory(create=True, size=frames.nbytes)
            np.ndarray(frames.shape, frames.dtype, shared.buf)[:] = frames
            results.append(pool.submit(writer.take_shared, shared.name, frames.shape))
            shared.close()
            if time.monotonic() > until:
                break
        for result in results:
            result.result()
        return len(results), time.perf_counter() - began


def _plain_loop(subject: Subject, s: ClipSettings, count: int, until: float) -> tuple[int, float]:
    drawn, made = writer.drawn(s), 0
    with tempfile.TemporaryDirectory(prefix="tower-gpu-") as folder:
        began = time.perf_counter()
        for seed in range(count):
            np.stack([np.asarray(picture) for picture in subject.plain(seed)[0]])
            if has_av():
                writer.write(Path(folder) / f"{seed}.mp4", drawn, s)
            made += 1
            if time.monotonic() > until:
                break
        return made, time.perf_counter() - began
