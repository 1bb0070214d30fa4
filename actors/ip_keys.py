"""The keys of IP-Adapters: of which kind one is, and the widths of the text and of the picture's embedding that it reads."""

from __future__ import annotations

from dataclasses import dataclass

from .headers import Header

IMAGE, PLACES = "image_proj.", "ip_adapter."  # what the keys of the two parts begin with
# A key of each kind's picture part, in the order in which they are looked for; the key whose last axis is the embedding's width; what it
# reads. Tower applies the kinds of which a name of CLIP's configuration stands for that width.
KINDS = (
    ("plain", "proj.weight", "proj.weight", "it reads the picture's one embedding", "projection_dim"),
    ("FaceID", "perceiver_resampler.proj_in.weight", "proj.0.weight", "it reads embeddings of a face", ""),
    ("full", "proj.3.weight", "proj.0.weight", "it reads all patches of the picture", ""),
    ("FaceID", "norm.weight", "proj.0.weight", "it reads embeddings of a face", ""),
    ("plus", "latents", "proj_in.weight", "it reads patches of the picture", "hidden_size"),
)


@dataclass(frozen=True)
class IpKeys:
    """What a file of an IP-Adapter holds.

    kind: "plain", "plus", "full" or "FaceID". reads: what it reads, for people. encoders_width: name, in the configuration of CLIP's vision
    model, of the width that its embedding must have; "" for kinds that Tower does not apply. image_width: that width.
    text_width: of the text that the UNet attends to. unknown: keys that belong to neither part.
    """

    kind: str
    reads: str
    encoders_width: str
    image_width: int
    text_width: int
    unknown: tuple[str, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        found = [] if self.encoders_width else [f"it is of kind {self.kind}, and Tower applies plain and plus"]
        if self.unknown:
            found.append(f"{len(self.unknown)} of its keys belong to no IP-Adapter, such as {self.unknown[0]}")
        return tuple(found)


def ip_keys(header: Header) -> IpKeys | None:
    """The IP-Adapter in a file; None where it holds none."""
    t = header.tensors
    widths = [x.shape[-1] for name, x in t.items() if name.startswith(PLACES) and name.endswith("to_k_ip.weight") and x.shape]
    rule = next((rule for rule in KINDS if IMAGE + rule[1] in t), None)
    if not widths or rule is None:
        return None
    kind, _, measured, reads, name = rule
    tensor = t.get(IMAGE + measured)
    unknown = tuple(n for n in t if not n.startswith((IMAGE, PLACES)))
    return IpKeys(kind, reads, name, tensor.shape[-1] if tensor and tensor.shape else 0, widths[0], unknown)
