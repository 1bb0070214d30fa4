"""Model specs for the pool: how to build each model, and how much device memory it needs."""

from __future__ import annotations

from pathlib import Path

from actors.families import ENCODER, FAMILIES, SHARED, Lazy
from actors.folders import opened
from actors.headers import read_header
from actors.identify import LTX_VAE, TEXT_PARTS
from actors.lora_keys import changing_text
from actors.values import Lora, ModelError, ModelFiles
from catalog.store import Catalog
from cluster.specs import ModelSpec
from pipeline.plan.resolve import StagePlan
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import text_digest
from pipeline.story.workflow import Workflow

FIRST_GUESS = 1.6  # memory of an unmeasured model over the size of its weights, where nobody has counted what its decoding takes
BESIDE_DECODING = 1.05  # the same without decoding, where that is counted: what denoising holds is gone by then
# Settings that a model is built with, or that a batch is made by. All others may differ from request to request.
BUILT_IN = ("batch_size", "vae_tiling", "context_length", "context_overlap")
PROMPTS = "prompts"  # what a cluster profile calls the text encoders
TEXT_GUESS = 1.1  # the same for text encoders: a prompt is short, so its activations are small

MEASURED = "SELECT workflow_digest, max(model_memory_bytes) AS bytes FROM takes WHERE model_memory_bytes IS NOT NULL GROUP BY ALL"


class ModelNeeds:
    """The model specs of one run; each spec is made once.

    measured: workflow digest to the bytes of device memory that its model needed in earlier takes.
    """

    def __init__(self, profile: ClusterProfile, measured: dict[str, int] | None = None):
        self.profile, self.measured = profile, measured or {}
        self.models: dict[str, ModelSpec] = {}

    @classmethod
    def of(cls, catalog: Catalog, profile: ClusterProfile) -> ModelNeeds:
        """Model needs, with memory as measured in the takes of this catalog.

        Raises:
            InputError: the profile's placement names neither a family nor a workflow.
        """
        known = {*FAMILIES, PROMPTS} | {row["workflow"] for row in catalog.rows("workflows", columns=["workflow"])}
        for name in profile.placement:
            if name not in known:
                families = ", ".join([*FAMILIES, PROMPTS])
                raise InputError(
                    f"cluster profile {profile.name}: placement of {name!r}, which is neither a family ({families}) nor a workflow"
                )
        rows = catalog.sql(MEASURED, ("takes",)).to_pylist()
        return cls(profile, {row["workflow_digest"]: row["bytes"] for row in rows})

    def model(self, stage: StagePlan) -> ModelSpec:
        """The spec of the model that makes this stage's takes."""
        identity = identity_of(stage)
        name = f"{identity} of {stage.frames} frames" if stage.frames else identity
        if name not in self.models:
            flow, files = stage.workflow, stage.files
            key = weights_key(flow, files)
            self.models[name] = ModelSpec(
                key,
                Lazy(SHARED),
                (flow.kind.model, identity, files, flow.settings()),
                flow.batch_size,
                stage.stage,
                self.measured.get(stage.workflow_digest, first_guess(flow, files)),
                self.profile.labels(flow.family, flow.name),
                frame_bytes(flow, stage.frames),
                lighter(flow, files),
                identity,
            )
        return self.models[name]

    def encoder(self, stage: StagePlan) -> ModelSpec:
        """The spec of the stage's text encoder. Workflows with the same checkpoint, dtype and settings of texts share it."""
        settings, own = stage.workflow.text_settings(), stage.files
        files = ModelFiles(own.checkpoint, dtype=own.dtype, base=own.base, embeddings=own.embeddings)
        key = f"{Path(files.checkpoint).name}#{text_digest(repr((files, settings)))[:12]}"
        if key not in self.models:
            args = (key, files, settings)
            memory = int(weights(loaded(files), True, files.dtype) * TEXT_GUESS)
            labels = self.profile.labels(PROMPTS, PROMPTS)
            self.models[key] = ModelSpec(key, Lazy(ENCODER), args, 8, "prompt", memory, labels)
        return self.models[key]


def weights_key(flow: Workflow, files: ModelFiles) -> str:
    """By what the pool knows a model: workflows of equal keys share its weights. What is built into a model belongs to it."""
    built = {name: getattr(flow, name) for name in BUILT_IN}
    return f"{Path(files.checkpoint).name}#{text_digest(repr((flow.family, files, built)))[:12]}"


def text_loras(stage: StagePlan) -> tuple[Lora, ...]:
    """The LoRAs of the stage, its workflow's and its shot's, that change the text encoder: prompts are encoded with them."""
    return changing_text((*stage.files.loras, *stage.loras)) if stage.workflow.kind.clip else ()


def identity_of(stage: StagePlan) -> str:
    """The name that the model writes on its receipts: workflow, version, and 12 characters of the workflow's digest."""
    return f"{stage.workflow.title}#{stage.workflow_digest[:12]}"


def first_guess(flow: Workflow, files: ModelFiles) -> int:
    """Bytes of device memory that a model probably needs before it was measured: its weights, and what it works with."""
    held, decoding = weights(loaded(files), False, files.dtype), flow.kind.decoding
    if decoding is None:
        return int(held * FIRST_GUESS)
    return int(held * BESIDE_DECODING) + decoding(files.folder, flow.settings()) * _bytes_each(files.dtype)


def lighter(flow: Workflow, files: ModelFiles) -> str:
    """What a workflow could say to need less memory, with the bytes of that; "" where it says so already, or it would not help."""
    if "vae_tiling" not in flow.kind.own or flow.vae_tiling:
        return ""
    tiled = first_guess(flow.model_copy(update={"vae_tiling": True}), files)
    return f"with vae_tiling: true its workflow would need {tiled / 1e9:.1f} GB" if tiled < first_guess(flow, files) else ""


def _bytes_each(dtype: str) -> int:
    """Of a number, by the dtype of a workflow: on a GPU, "auto" loads 16 bits."""
    return 4 if dtype == "float32" else 2


def frame_bytes(flow: Workflow, frames: int = 0) -> int:
    """Bytes of one clip in the object store, uint8 RGB. 0 for stills: they are small, and the pool does not count them.

    Args:
        frames: of a finish, how many its clip has.
    """
    return flow.width * flow.height * 3 * (flow.num_frames or frames)


def loaded(files: ModelFiles) -> list[str]:
    """The folders and files that weights are loaded from. Of a base: of the parts that the checkpoint's file lacks, and of no others."""
    found = files.weights
    if files.base and (base := Path(files.base) / "transformer").is_dir():
        vae = any(name.startswith(LTX_VAE) for name in read_header(Path(files.checkpoint)).tensors)
        found += [str(base.parent / part) for part in (("text_encoder",) if vae else ("text_encoder", "vae"))]
    return found


def weights(folders: list[str], text: bool, dtype: str) -> int:
    """Bytes that the weights in these folders take on a device: of the files that a loader would open, and of no others.

    Args:
        folders: of checkpoints, or of single parts; and checkpoints in one file.
        text: True counts only the subfolders of text encoders, False only the others.
        dtype: as in a workflow.
    """
    count = 0
    for folder in map(Path, folders):
        for file in opened(folder):
            in_text = file != folder and any(n.startswith("text_encoder") for n in (folder.name, file.relative_to(folder).parts[0]))
            count += _numbers(file, text) if file == folder else _numbers(file) if in_text == text else 0
    return count * _bytes_each(dtype)


def _numbers(file: Path, text: bool | None = None) -> int:
    """How many numbers a safetensors file holds. Only its header is read.

    Args:
        text: of a whole checkpoint in one file, count only the text encoder (True), or only the rest (False).
    """
    try:
        header = read_header(file)
    except ModelError:
        return file.stat().st_size // 2  # a guess: loading the model will report the damaged file
    if header.format == "gguf":  # stays as small as it is in the file
        return 0 if text else file.stat().st_size // 2
    tensors = header.tensors.items()
    return sum(t.parameters for name, t in tensors if text is None or name.startswith(TEXT_PARTS) == text)
