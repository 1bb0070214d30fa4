"""Marks: what a media file says of itself to people and programs, as XMP and as plain keys. Equal marks give equal bytes."""

from __future__ import annotations

import struct
import tempfile
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal
from xml.sax.saxutils import escape, quoteattr

import av

from gates.decode import ffmpeg_path

# IPTC's list of digital source types, https://cv.iptc.org/newscodes/digitalsourcetype/: made by a model, or by people and a model.
SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SAID = {
    "trainedAlgorithmicMedia": "AI-generated",
    "compositeWithTrainedAlgorithmicMedia": "AI-generated, from what people made",
}

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25  # the IHDR chunk, always the first: 13 bytes of data, 12 around them
TEXT_CHUNKS = (b"tEXt", b"iTXt", b"zTXt")
KEYWORDS = ("title", "comment", "software")  # which PNG spells with a capital letter
XMP_KEYWORD = b"XML:com.adobe.xmp" + bytes(5)  # not compressed, in no language
XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")  # where MP4 holds XMP, as Adobe's XMP specification part 3 has it
# Own keys survive in MP4 only with use_metadata_tags; bitexact leaves out FFmpeg's version, and the clock.
MP4 = {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"}


@dataclass(frozen=True)
class Marks:
    """source: None for what people made. facts: key to text, such as workflow, seed and stage; a title is one of them."""

    source: SourceType | None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, str]:
        """All of it as plain keys: the facts, `software`, and the source type with a `comment` in words."""
        said = {"comment": SAID[self.source], "digital_source_type": SOURCE_TYPES + self.source} if self.source else {}
        return {name: _plain(text) for name, text in {"software": "Tower", **said, **self.facts}.items()}


def take_marks(row: Mapping[str, Any], composite: bool) -> Marks:
    """Marks of a stored take. They say only what decides its pixels: a take that is made again must have the same bytes.

    Args:
        row: of the take. composite: whether a picture or a clip of a person's is in what it was made from.
    """
    if is_given(row):
        return Marks(None, {"stage": row["stage"], "given_digest": ", ".join(dict(row["reference_files"] or {}).values())})
    facts = {"stage": row["stage"], "workflow": f"{row['workflow']}@{row['workflow_version']}", "workflow_digest": row["workflow_digest"]}
    seed = {} if row["seed"] is None else {"seed": str(row["seed"])}  # not every stage has one
    return Marks("compositeWithTrainedAlgorithmicMedia" if composite else "trainedAlgorithmicMedia", facts | seed)


def is_given(row: Mapping[str, Any]) -> bool:
    """Whether a take is a person's picture, only scaled: neither a seed nor an earlier take is in it."""
    return row["seed"] is None and row["keyframe_media"] is None


def marked(data: bytes, suffix: str, marks: Marks) -> bytes:
    """The same picture or clip with these marks in place of all that it has. Pixels and timestamps stay to the bit.

    Args:
        suffix: of the file's name: ".png" or ".mp4".
    """
    return {".png": _marked_png, ".mp4": _marked_mp4}[suffix](data, marks)


def xmp(marks: Marks) -> bytes:
    """The marks as an XMP packet, UTF-8."""
    facts = {f"tower:{name}": text for name, text in marks.keys.items() if name not in ("title", "digital_source_type")}
    if marks.source:
        facts["Iptc4xmpExt:DigitalSourceType"] = SOURCE_TYPES + marks.source
    title = marks.keys.get("title")
    named = f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{escape(title)}</rdf:li></rdf:Alt></dc:title>' if title else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:tower="urn:tower:provenance:"'
        f' xmp:CreatorTool="Tower" {" ".join(f"{name}={quoteattr(text)}" for name, text in facts.items())}>{named}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def xmp_box(packet: bytes) -> bytes:
    """An XMP packet as a box to be added at the end of an MP4 file."""
    return struct.pack(">I4s", len(packet) + 24, b"uuid") + XMP_BOX.bytes + packet


def xmp_in(file: BinaryIO) -> bytes:
    """The XMP packet of a PNG or MP4 that `marked` made, for pictures that are taken from it; empty where it has none."""
    start = file.read(len(SIGNATURE))
    return _xmp_in_png(file) if start == SIGNATURE else _xmp_in_mp4(file)


def _xmp_in_png(file: BinaryIO) -> bytes:
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        content = file.read(int.from_bytes(head[:4], "big") + 4)[:-4]
        if head[4:] == b"iTXt" and content.startswith(XMP_KEYWORD):
            return content[len(XMP_KEYWORD) :]
    return b""


def _xmp_in_mp4(file: BinaryIO) -> bytes:
    at = 0
    while len(head := (file.seek(at), file.read(24))[1]) == 24:
        size = int.from_bytes(head[:4] if head[:4] != b"\0\0\0\1" else head[8:16], "big")  # 1: a number of 64 bits follows the type
        if head[4:8] == b"uuid" and head[8:] == XMP_BOX.bytes:
            return file.read(size - 24)
        if size < 8:  # 0: to the end of the file
            break
        at += size
    return b""


def _marked_png(data: bytes, marks: Marks) -> bytes:
    texts = [_text(name.capitalize() if name in KEYWORDS else name, text) for name, text in marks.keys.items()]
    texts.append(_chunk(b"iTXt", XMP_KEYWORD + xmp(marks)))
    kept, at = [], HEADER_END
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in TEXT_CHUNKS:
            kept.append(data[at:end])
        at = end
    return b"".join([data[:HEADER_END], *texts, *kept])


def _text(keyword: str, text: str) -> bytes:
    """A text as tEXt, which every reader knows, if Latin-1 has its letters; else as iTXt."""
    try:
        return _chunk(b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", keyword.encode() + bytes(5) + text.encode())


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _marked_mp4(data: bytes, marks: Marks) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tower-marks-") as folder:
        source, target = Path(folder) / "source.mp4", Path(folder) / "marked.mp4"
        source.write_bytes(data)
        with av.open(ffmpeg_path(source)) as had, av.open(ffmpeg_path(target), "w", format="mp4", options=MP4) as out:
            out.metadata.update(marks.keys)
            streams = {stream.index: out.add_stream_from_template(stream) for stream in had.streams}
            for packet in had.demux():
                if packet.dts is not None:  # the last one of each stream is empty
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        return target.read_bytes() + xmp_box(xmp(marks))


def _plain(text: str) -> str:
    """The text without the characters that XML 1.0 forbids."""
    return "".join(c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff")
