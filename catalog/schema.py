"""The tables of the catalog, column by column.

`since` is the schema version that added a column or a table (version 5 added only table properties, version 6 only copies of
the logs). A new column gets the next version; a write never changes a schema. `catalog/migrate.py` adds the columns that an
older catalog lacks. Columns are never renamed, narrowed or removed. Seconds are wall-clock seconds, sizes are bytes, digests
are SHA-256 in hexadecimal, times are UTC.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

VERSION = 8

TEXT, INT, LONG, REAL, FLAG, TIME = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(TEXT)
NUMBERS = pa.map_(TEXT, REAL)
NAMES = pa.map_(TEXT, TEXT)


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    doc: str
    since: int = 1


@dataclass(frozen=True)
class Table:
    name: str
    doc: str
    columns: tuple[Column, ...]
    since: int = 1

    @property
    def schema(self) -> pa.Schema:
        """Columns sorted by the version that added them, so that migrated and new catalogs have the same order."""
        return pa.schema([(c.name, c.type) for c in sorted(self.columns, key=lambda c: c.since)])

    @property
    def properties(self) -> dict[str, str]:
        """Delta table properties, since version 5.

        For each data file, the log stores the minimum and maximum of the column `episode` alone. Queries skip files by
        no other column, and statistics of all forty columns would make commits, reads and a driver's memory larger.
        """
        return {"delta.dataSkippingStatsColumns": "episode"} if "episode" in self.schema.names else {}


MIGRATIONS = Table(
    "migrations",
    "Which versions this catalog has been; the newest is what it is.",
    (
        Column("version", INT, "number of the schema"),
        Column("at", TIME, "when it was reached"),
        Column("tower", TEXT, "version of Tower that did it"),
        Column("host", TEXT, "machine"),
    ),
    since=3,
)

RUNS = Table(
    "runs",
    "One row when a run starts, one a minute while it lives, one when it ends.",
    (
        Column("run", TEXT, "id of the run"),
        Column("event", TEXT, "started, alive, finished, interrupted, failed or refused"),
        Column("at", TIME, "when"),
        Column("episode", TEXT, "id of the episode, or of the suite of a benchmark"),
        Column("episode_file", TEXT, "path as it was given"),
        Column("episode_digest", TEXT, "of the file's bytes"),
        Column("shots", INT, "shots in the episode"),
        Column("stale", INT, "of them, to be rendered by this run"),
        Column("accepted", INT, "of them, accepted at the end; null before"),
        Column("exhausted", INT, "of them, with their attempts spent; null before the end"),
        Column("devices", INT, "devices of the pool"),
        Column("host", TEXT, "machine of the driver"),
        Column("versions", TEXT, "JSON: tower, python, torch, diffusers, ray"),
        Column("error", TEXT, "what ended it, where it failed"),
        Column("pid", INT, "process of the driver", 3),
        Column(
            "pid_space",
            TEXT,
            "where that process id means something: each container and each boot has ids of its own",
            3,
        ),
        Column(
            "process_started",
            REAL,
            "when that process began, seconds since the boot (since 1970 where no boot is named)",
            3,
        ),
        Column("allow_experimental", FLAG, "whether workflows that are not proven were allowed", 3),
        Column("workflows", NAMES, "name@version to status, at the start of the run", 3),
        Column("job", TEXT, "id of the job that the run is part of; null where a person's shell began it", 8),
    ),
)

TAKES = Table(
    "takes",
    "One row an attempt at a keyframe, a clip or a finish, whatever came of it.",
    (
        Column("take", TEXT, "id: E01/SH0010/clip/v003"),
        Column("run", TEXT, "run that made it"),
        Column("at", TIME, "when the verdict fell"),
        Column("episode", TEXT, "id of the episode"),
        Column("sequence", TEXT, "id of the sequence"),
        Column("shot", TEXT, "id of the shot"),
        Column("stage", TEXT, "keyframe, clip or finish"),
        Column("attempt", INT, "1, 2, 3 … over all runs"),
        Column("variation", INT, "what the seed derives from: the smallest number that no rejected take of these inputs has used"),
        Column("inputs", TEXT, "digest of everything that decides the pixels, but the variation"),
        Column("workflow", TEXT, "name"),
        Column("workflow_version", INT, "version"),
        Column("workflow_digest", TEXT, "digest of its settings, model files and libraries"),
        Column("seed", LONG, "null where a still was given"),
        Column("prompt", TEXT, "as composed"),
        Column("negative_prompt", TEXT, "as composed"),
        Column("prompt_cut", TEXT, "the end of the prompt that did not fit the encoder, or null"),
        Column("keyframe_media", TEXT, "digest of the file that it started from: of a clip its still, of a finish its clip"),
        Column("media", TEXT, "digest of the file, null where there is none"),
        Column("media_path", TEXT, "relative to the catalog"),
        Column("media_bytes", LONG, "size of the file"),
        Column("width", INT, "pixels"),
        Column("height", INT, "pixels"),
        Column("frames", INT, "frames; 1 for a keyframe"),
        Column("fps", REAL, "frames a second; null for a keyframe"),
        Column("outcome", TEXT, "accepted, rejected or error"),
        Column("labels", TEXTS, "why the gate rejected"),
        Column("warnings", TEXTS, "what the gate found and let pass", 2),
        Column("profile", TEXT, "gate profile: anime#0123456789ab", 2),
        Column("declared", TEXTS, "what the shot declares: hold, fade …", 2),
        Column("measures", NUMBERS, "everything that the gate measured; units in gates/measures.py"),
        Column("findings", TEXT, "JSON: label, value, threshold, frames"),
        Column("queue_seconds", REAL, "from asking for a device to its answer, less device_seconds"),
        Column("device_seconds", REAL, "on the device; one take's share of its batch"),
        Column("gate_seconds", REAL, "encoding, decoding and judging"),
        Column("peak_memory_bytes", LONG, "of the device, or on a CPU of the process"),
        Column("device", TEXT, "the hardware's name"),
        Column("error", TEXT, "what went wrong, where outcome is error"),
        Column("encode_seconds", REAL, "of gate_seconds, writing the file", 3),
        Column("node", TEXT, "machine of the device", 3),
        Column("parameters", TEXT, "JSON: the workflow's settings as they were used", 3),
        Column("reference_files", NAMES, "files that the take was made from, and their digests: given keyframe, LoRAs", 3),
        Column("upstream", TEXT, "id of the take that it started from: of a clip its keyframe, of a finish its clip", 3),
        Column("shot_variation", INT, "the shot's own `variation`", 3),
        Column("model_memory_bytes", LONG, "of the device, what the model itself was measured to need; null where it is no GPU", 4),
        Column("certificate", TEXT, "JSON: what is in the model and the text encoder, how they sample, how exact LoRAs are", 7),
    ),
)

STORIES = Table(
    "stories",
    "One row a version of an episode's file, with the files that it names; the latest of an episode is what the desk shows.",
    (
        Column("episode", TEXT, "id of the episode", 8),
        Column("at", TIME, "when it was submitted, or first rendered", 8),
        Column("by", TEXT, "who", 8),
        Column("name", TEXT, "of the episode's file", 8),
        Column("digest", TEXT, "of the file's bytes", 8),
        Column("title", TEXT, "of the episode", 8),
        Column("files", NAMES, "path that the episode's file gives (its own name for itself) to path of the bytes, in the catalog", 8),
    ),
    since=8,
)

CONTROLS = Table(
    "controls",
    "One row a word to a running render; the latest of a run holds.",
    (
        Column("at", TIME, "when"),
        Column("run", TEXT, "id of the run"),
        Column("episode", TEXT, "id of its episode"),
        Column("action", TEXT, "pause or resume"),
        Column("by", TEXT, "who"),
    ),
    since=4,
)

JUDGEMENTS = Table(
    "judgements",
    "One row where a stored take was judged again and the verdict is another; the latest holds.",
    (
        Column("take", TEXT, "id"),
        Column("at", TIME, "when"),
        Column("episode", TEXT, "id of the episode"),
        Column("profile", TEXT, "as in takes"),
        Column("declared", TEXTS, "as in takes"),
        Column("outcome", TEXT, "accepted or rejected"),
        Column("labels", TEXTS, "as in takes"),
        Column("warnings", TEXTS, "as in takes"),
        Column("findings", TEXT, "as in takes"),
    ),
    since=2,
)

REVIEWS = Table(
    "reviews",
    "One row a person's word on a take; the latest holds.",
    (
        Column("take", TEXT, "id"),
        Column("at", TIME, "when"),
        Column("episode", TEXT, "id of the episode"),
        Column("verdict", TEXT, "approved (it stands, whatever comes), picked (before other accepted takes), retake, or note"),
        Column("note", TEXT, "what was said"),
        Column("by", TEXT, "who"),
        Column("attempts", INT, "retake: attempts of the stage so far, none of which counts any more; null: only this take does not", 8),
        Column("overrides", TEXT, "retake, JSON: seed, prompt and parameters in place of what the shot says", 8),
        Column("written", TEXT, "retake: digest of the shot as it was written; the overrides hold as long as it is", 8),
        Column("first_frame", INT, "of what the note is about, from 0; null: the whole take", 8),
        Column("last_frame", INT, "of what the note is about, from 0", 8),
        Column("drawing", TEXT, "JSON: lines over first_frame, each a list of points, in shares of width and height", 8),
    ),
    since=3,
)

CALIBRATIONS = Table(
    "calibrations",
    "One row a clip or still that the gates' calibration judged.",
    (
        Column("run", TEXT, "id of the calibration"),
        Column("at", TIME, "when it began"),
        Column("half", TEXT, "tune or test"),
        Column("device", TEXT, "the hardware's name"),
        Column("case", TEXT, "name of the case"),
        Column("gate", TEXT, "image or video"),
        Column("source", TEXT, "question, scenes, photos or demo"),
        Column("artwork", TEXT, "what halves are split by"),
        Column("kind", TEXT, "good, hard or fault"),
        Column("declared", TEXTS, "what the clip declares"),
        Column("label", TEXT, "what was planted, or null"),
        Column("fault", TEXT, "how it was planted"),
        Column("severity", REAL, "how much of it"),
        Column("unit", TEXT, "unit of the severity"),
        Column("over_floor", FLAG, "whether recall is promised"),
        Column("profile", TEXT, "as in takes"),
        Column("outcome", TEXT, "pass, warn or fail"),
        Column("failures", TEXTS, "labels"),
        Column("warnings", TEXTS, "labels"),
        Column("measures", NUMBERS, "as in takes"),
        Column("peers", NUMBERS, "other tools: 1 found, 0 not; flickering is a score"),
        Column("cpu_seconds", REAL, "of the gate alone"),
    ),
    since=2,
)

WORKFLOWS = Table(
    "workflows",
    "One row a registered version of a workflow; never changed.",
    (
        Column("workflow", TEXT, "name"),
        Column("version", INT, "1, 2, 3 …"),
        Column("at", TIME, "when it was registered"),
        Column("family", TEXT, "stable_diffusion, ltx_video or animatediff"),
        Column("stage", TEXT, "keyframe, clip or finish"),
        Column("settings_digest", TEXT, "digest of all settings but the description"),
        Column("digest", TEXT, "digest of settings, model files and libraries at that time; null where the files were not there"),
        Column("settings", TEXT, "JSON: everything that the file says"),
        Column("models", NAMES, "model path to digest, as found; empty where the files were not there"),
        Column("libraries", NAMES, "library to version"),
        Column("source", TEXT, "file that it was read from"),
        Column("by", TEXT, "who registered it"),
    ),
    since=3,
)

PROMOTIONS = Table(
    "promotions",
    "The ledger: one row a decision about a workflow.",
    (
        Column("at", TIME, "when"),
        Column("action", TEXT, "promote, deprecate, archive or alias"),
        Column("workflow", TEXT, "name"),
        Column("version", INT, "version; null for an alias that follows the newest"),
        Column("digest", TEXT, "promote: the digest that was proven"),
        Column("evidence", TEXT, "promote: id of the benchmark; archive: of one that shows why, or null"),
        Column("alias", TEXT, "alias: the other name"),
        Column("by", TEXT, "who"),
        Column("why", TEXT, "reason"),
    ),
    since=3,
)

BENCHMARKS = Table(
    "benchmarks",
    "One row a cell of a benchmark: one shot of a suite with one seed, rendered once by one workflow.",
    (
        Column("benchmark", TEXT, "id"),
        Column("at", TIME, "when it ended"),
        Column("suite", TEXT, "name"),
        Column("suite_digest", TEXT, "digest of everything that the suite's file says"),
        Column("cells", INT, "cells that the benchmark has in all: fewer rows are an unfinished one"),
        Column("workflow", TEXT, "name"),
        Column("version", INT, "version"),
        Column("digest", TEXT, "digest of settings, model files and libraries"),
        Column("keyframe_digest", TEXT, "clips: digest of the workflow that drew the keyframes"),
        Column("stage", TEXT, "keyframe, clip or finish"),
        Column("shot", TEXT, "id of the cell's shot"),
        Column("case", TEXT, "name of the suite's case"),
        Column("seed", INT, "number of the seed: the shot's variation"),
        Column("take", TEXT, "the first take of the cell that was judged"),
        Column("media", TEXT, "digest of its file"),
        Column("outcome", TEXT, "accepted, rejected, error, or no_keyframe where the clip had nothing to start from"),
        Column("labels", TEXTS, "why it was rejected"),
        Column("profile", TEXT, "gate profile: anime#0123456789ab"),
        Column("queue_seconds", REAL, "as in takes"),
        Column("device_seconds", REAL, "as in takes"),
        Column("encode_seconds", REAL, "as in takes"),
        Column("gate_seconds", REAL, "as in takes"),
        Column("peak_memory_bytes", LONG, "as in takes"),
        Column("device", TEXT, "the hardware's name"),
        Column("libraries", NAMES, "library to version"),
    ),
    since=3,
)

MEASUREMENTS = Table(
    "measurements",
    "One row a figure that a benchmark job of this repository measured.",
    (
        Column("job", TEXT, "the job: orchestration …"),
        Column("run", TEXT, "id of its run"),
        Column("at", TIME, "when it began"),
        Column("device", TEXT, "the hardware's name"),
        Column("cores", INT, "of the machine"),
        Column("what", TEXT, "what was measured"),
        Column("value", REAL, "the figure"),
        Column("unit", TEXT, "its unit"),
        Column("least", REAL, "what it must reach; null where nothing is promised"),
        Column("most", REAL, "what it must not exceed; null where nothing is promised"),
    ),
    since=4,
)

ALL = (MIGRATIONS, STORIES, RUNS, CONTROLS, TAKES, JUDGEMENTS, REVIEWS, CALIBRATIONS, WORKFLOWS, PROMOTIONS, BENCHMARKS, MEASUREMENTS)
TABLES = {t.name: t for t in ALL}
