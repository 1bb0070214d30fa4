"""The tables, column by column. Changing one is a migration, never a merge on write."""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

# One row when a run starts, one when it ends.
RUNS = pa.schema(
    [
        ("run", pa.string()),  # id of the run
        ("event", pa.string()),  # started | finished | interrupted | failed
        ("at", TIME),
        ("episode", pa.string()),
        ("episode_file", pa.string()),
        ("episode_digest", pa.string()),  # sha256 of the file's bytes
        ("shots", pa.int32()),  # shots in the episode
        ("stale", pa.int32()),  # of them, to be rendered by this run
        ("accepted", pa.int32()),  # of them, accepted at the end; null at the start
        ("exhausted", pa.int32()),
        ("devices", pa.int32()),
        ("host", pa.string()),
        ("versions", pa.string()),  # JSON: tower, python, torch, diffusers, ray
        ("error", pa.string()),
    ]
)

# One row an attempt at a keyframe or a clip, whatever came of it.
TAKES = pa.schema(
    [
        ("take", pa.string()),  # id: E01/SH0010/clip/v003
        ("run", pa.string()),
        ("at", TIME),  # when the verdict fell
        ("episode", pa.string()),
        ("sequence", pa.string()),
        ("shot", pa.string()),
        ("stage", pa.string()),  # keyframe | clip
        ("attempt", pa.int32()),  # 1, 2, 3 … over all runs
        ("variation", pa.int32()),  # what the seed derives from: rejected takes of these inputs so far
        ("inputs", pa.string()),  # sha256 of everything that decides the pixels, but the variation
        ("workflow", pa.string()),
        ("workflow_version", pa.int32()),
        ("workflow_digest", pa.string()),  # sha256 of settings and model files
        ("seed", pa.int64()),  # null where a still was given
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("prompt_cut", pa.string()),  # the end of the prompt that did not fit the encoder, or null
        ("keyframe_media", pa.string()),  # clips: the still that it started from
        ("media", pa.string()),  # sha256 of the file, null where there is none
        ("media_path", pa.string()),  # relative to the catalog
        ("media_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("outcome", pa.string()),  # accepted | rejected | error
        ("labels", pa.list_(pa.string())),  # why the gate rejected
        ("warnings", pa.list_(pa.string())),  # what it found and let pass
        ("profile", pa.string()),  # the gate profile: anime#0123456789ab
        ("declared", pa.list_(pa.string())),  # what the shot declares: hold, fade …
        ("measures", pa.map_(pa.string(), pa.float64())),  # everything the gate measured
        ("findings", pa.string()),  # JSON: label, value, threshold, frames
        ("queue_seconds", pa.float64()),  # from asking for a device to its answer, less device_seconds
        ("device_seconds", pa.float64()),
        ("gate_seconds", pa.float64()),  # encoding, decoding and judging
        ("peak_memory_bytes", pa.int64()),
        ("device", pa.string()),  # the hardware's name
        ("error", pa.string()),
    ]
)

# One row where a stored take was judged again and the verdict is another; the latest holds.
JUDGEMENTS = pa.schema(
    [
        ("take", pa.string()),
        ("at", TIME),
        ("episode", pa.string()),
        ("profile", pa.string()),  # as in takes
        ("declared", pa.list_(pa.string())),
        ("outcome", pa.string()),  # accepted | rejected
        ("labels", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
        ("findings", pa.string()),  # JSON, as in takes
    ]
)

# One row a clip or still that the gates' calibration judged.
CALIBRATIONS = pa.schema(
    [
        ("run", pa.string()),
        ("at", TIME),
        ("half", pa.string()),  # tune | test
        ("device", pa.string()),
        ("case", pa.string()),
        ("gate", pa.string()),  # image | video
        ("source", pa.string()),  # question | scenes | photos | demo
        ("artwork", pa.string()),  # what halves are split by
        ("kind", pa.string()),  # good | hard | fault
        ("declared", pa.list_(pa.string())),
        ("label", pa.string()),  # what was planted, or null
        ("fault", pa.string()),
        ("severity", pa.float64()),
        ("unit", pa.string()),
        ("over_floor", pa.bool_()),  # whether recall is promised
        ("profile", pa.string()),
        ("outcome", pa.string()),  # pass | warn | fail
        ("failures", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
        ("measures", pa.map_(pa.string(), pa.float64())),
        ("peers", pa.map_(pa.string(), pa.float64())),  # other tools: 1 found, 0 not; flickering is a score
        ("cpu_seconds", pa.float64()),  # of the gate alone
    ]
)

TABLES = {"runs": RUNS, "takes": TAKES, "judgements": JUDGEMENTS, "calibrations": CALIBRATIONS}
