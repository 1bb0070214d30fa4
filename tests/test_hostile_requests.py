"""What strangers and broken programs send: refused in one sentence, the memory flat, the service answering others meanwhile."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from pipeline.api.guard import BODY, UPLOAD
from pipeline.api.routers import episodes as uploads
from pipeline.api.services import query as sql
from pipeline.api.services.submit import PART, SUBMITTED

from .conftest import EPISODE
from .service import Served, asking, desk_app, serving

FLAT = 150  # MB that the service's memory may grow by, whatever it is sent
GIGABYTE = 10**9
YAML = {"content-type": "application/yaml"}
JSON = {"content-type": "application/json"}
WITH_STILL = EPISODE.replace("title: A test}", "title: A test, keyframe: still.png}")


@pytest.fixture
def catalog(seeded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(seeded, tmp_path / "catalog-data")


@pytest.fixture
def client(catalog: Path) -> Iterator[httpx.Client]:
    with asking(desk_app(catalog)) as client:
        yield client


@pytest.fixture
def rendered_client(copied: Path) -> Iterator[httpx.Client]:
    with asking(desk_app(copied / "catalog-data")) as client:
        yield client


def told(got: httpx.Response, status: int, *words: str) -> None:
    """A problem with one sentence that holds all the words, and nothing of Python's."""
    assert got.status_code == status, (got.status_code, got.text[:300])
    assert got.headers["content-type"] == "application/problem+json"
    detail = got.json()["detail"]
    assert "\n" not in detail and "Traceback" not in detail and len(detail) <= 2000
    for word in words:
        assert word in detail, (word, detail)


# Names, numbers, headers


OUTSIDE = ["..", "../..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "....//", "E90%00", "E90%0a", "E90%2f..", "..%5c..", "%c0%ae%c0%ae", "E90;x", "~", "E90?", "Ｅ90", "E٩٠"]


ADDRESSES = [
    "/page/{}", "/page/{}/etc/passwd", "/episodes/{}", "/episodes/{}/story", "/episodes/{}/movie", "/episodes/{}/plan", "/episodes/E90/shots/{}", "/episodes/E90/contact_sheet/{}.png",
    "/takes/{}/SH0010/clip/v001/media", "/takes/E90/{}/clip/v001/media", "/takes/E90/SH0010/{}/v001/media", "/takes/E90/SH0010/clip/{}/media",
    "/takes/E90/SH0010/clip/v001/frames/{}.jpg", "/jobs/{}/log", "/workflows/{}/1", "/workflows/x/{}", "/{}/etc/passwd", "//{}",
]  # fmt: skip
NO_NUMBERS = ["-1", "-0x1", "99999999999999999999", "9" * 5000, "1e3", "NaN", "", "+1e400", "1;2"]
NUMBERED = [
    "/takes/E90/SH0010/clip/v001/frames/{}.jpg", "/episodes/E90/contact_sheet/{}.png", "/workflows/sd15_keyframe_demo/{}", "/workflows/sd15_keyframe_demo/{}/explain",
    "/takes/E90/SH0010/clip/v001/filmstrip.jpg?frames={}", "/takes/E90/SH0010/clip/v001/frames/0.jpg?width={}", "/jobs/x/log?offset={}",
]  # fmt: skip


def test_no_path_is_taken_from_an_address(client):
    for path in ADDRESSES:
        for name in OUTSIDE:
            got = client.get(f"http://localhost:8000{path.format(name)}")
            ours = got.status_code == 200 and got.url.path in ("/", "/jobs", "/episodes", "/workflows")  # the client has resolved dots
            assert ours or got.status_code in (404, 405, 422), (path, name, got.status_code, got.text[:200])
            assert "root:" not in got.text


def test_numbers_that_are_none_or_too_large_are_one_sentence(client):
    for path in NUMBERED:
        for digits in NO_NUMBERS:
            got = client.get(path.format(digits))
            assert got.status_code in (404, 422), (path, digits[:30], got.status_code)
            told(got, got.status_code)


@pytest.mark.ray
def test_ranges_of_any_shape_are_parts_the_whole_or_a_problem(rendered_client):
    url = "/takes/E90/SH0010/clip/v001/media"
    whole = rendered_client.get(url).content
    for text, status in [
        ("bytes=0-9", 206), ("bytes=-5", 206), ("bytes=5-", 206), ("bytes=0-99999999999999999999", 206), ("bytes=-99999999999999999999", 206),
        ("bytes=0-0,2-3", 206), ("bytes=" + ",".join(["0-"] * 50), 206), ("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 10_000, 2)), 200),
        ("bytes=99999999999999999999-", 416), (f"bytes={len(whole)}-", 416), ("bytes=9-5", 400), ("bytes=", 400), ("bytes=a-b", 400), ("bytes=--5", 416),
        ("bytes=" + "9" * 5000 + "-", 400), ("lines=1-2", 400), ("x" * 30_000, 400),
    ]:  # fmt: skip
        got = rendered_client.get(url, headers={"range": text})
        assert got.status_code == status, (text[:60], got.status_code)
        assert len(got.content) <= len(whole) + 20_000
        if status >= 400:
            told(got, status, "Range")
    assert rendered_client.get(url, headers={"range": "bytes=3-7"}).content == whole[3:8]


@pytest.mark.ray
def test_etags_and_ids_of_events_that_are_garbage_change_nothing(rendered_client):
    board = rendered_client.get("/episodes/E90")
    for text in ("*", "W/" + board.headers["etag"], '"', "x" * 50_000, board.headers["etag"].strip('"'), '"\\"'):
        assert rendered_client.get("/episodes/E90", headers={"if-none-match": text}).content == board.content
    assert rendered_client.get("/episodes/E90", headers={"if-none-match": board.headers["etag"]}).status_code == 304
    told(rendered_client.get("/events", headers={"last-event-id": "x" * 201}), 422)


def test_ten_thousand_parameters_are_passed_over(client):
    assert client.get("/episodes?" + "a&" * 10_000).status_code == 200
    told(client.get("/reviews?" + "a=&" * 10_000), 422, "episode")


# Bodies


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400), (b'{"a":' * 100_000, 400), (b"\xff\xfe", 422), (b"\x00", 422), (b"", 422), (b"null", 422), (b"[]", 422), (b'"x"', 422),
        (b'{"take":"\\ud800"}', 422), (b'{"\\udfff":1}', 422), (b'{"take":NaN}', 422), (b"9" * 100_000, 400), (b'{"take":' + b"9" * 5000 + b"}", 400),
        (b'{"take":"E90/SH0010/clip/v001","verdict":"note","note":"x","drawing":[[[NaN,0]]]}', 422),
        (b'{"take":"E90/SH0010/clip/v001","verdict":"retake","parameters":{"x":Infinity}}', 422),
        (b'{"take":"E90/SH0010/clip/v001","verdict":"retake","seed":1e400}', 422), (b'{"take":"E90/SH0010/clip/v001","verdict":"note","note":"\\ud83d"}', 422),
        (b'{"take":"../../etc/passwd","verdict":"note"}', 422), (b'{"take":"E90/SH0010/clip/v001\\n","verdict":"note"}', 422),
    ],
)  # fmt: skip
def test_json_that_is_none_or_does_not_fit_is_one_sentence(client, body, status):
    told(client.post("/reviews", content=body, headers=JSON), status)


def test_json_counts_only_where_it_says_so(client):
    """A form of another site can send text/plain, and no JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        told(client.post("/catalog/query", content=b'{"sql":"SELECT 1"}', headers={"content-type": kind}), 422)


@pytest.mark.ray
def test_a_huge_drawing_is_refused_and_nothing_is_recorded(rendered_client):
    said = {"take": "E90/SH0010/clip/v001", "verdict": "note", "first_frame": 0}
    for drawing in ([[[0.1, 0.2]] * 6000], [[[0.1, 0.2]]] * 501, [[[0.1] * 1000]], [[[2, 3]]], [[[-1, 0]]], [[]], [[[]]], [["x"]]):
        told(rendered_client.post("/reviews", json=said | {"drawing": drawing}), 422)
    told(rendered_client.post("/reviews", json=said | {"drawing": [[[0.123456789, 0.987654321]] * 200_000]}), 413, "MB")
    assert rendered_client.get("/reviews?episode=E90").json() == []


def shots(count: int) -> bytes:
    made = [{"id": f"SH{n:06}", "frames": 48, "action": "walking"} for n in range(1, count + 1)]
    head = {"id": "E91", "title": "Long", "width": 192, "height": 128, "fps": 24, "keyframe_workflow": "sd15_keyframe_demo", "clip_workflow": "ltx_video_2b_demo"}
    return json.dumps(head | {"sequences": [{"id": "S010", "shots": made}]}).encode()


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
BOMBS: dict[str, tuple[str | bytes, dict[str, str]]] = {
    "aliases of aliases": (LAUGHS, YAML),
    "a million aliases": ("a: &a x\nb: [" + "*a," * 1_200_000 + "*a]", YAML),
    "merges": ("x-a: &a {" + ",".join(f"k{n}: 1" for n in range(1000)) + "}\nx-b: {<<: [" + ",".join(["*a"] * 500_000) + "]}\n", YAML),
    "brackets": ("[" * 100_000, YAML),
    "braces": ("{a: " * 100_000, YAML),
    "dashes": ("- " * 200_000, YAML),
    "one huge text": ("title: " + "x" * 3_900_000, YAML),
    "escapes": ('title: "' + "\\n" * 1_900_000 + '"', YAML),
    "one huge number": ("id: " + "9" * 3_000_000, YAML),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(300_000)), YAML),
    "documents": ("---\n" * 900_000, YAML),
    "a program": ("a: !!python/object/apply:os.system ['touch stolen']", YAML),
    "a NUL": ("id: a\0b", YAML),
    "all bytes": (bytes(range(256)) * 1000, YAML),
    "gzip": (zlib.compress(b"x" * 10**7), YAML),
    "deep JSON": ('{"a":' * 1_000_000, JSON),
    "lists in JSON": ("[" + "[]," * 6_000_000 + "[]]", JSON),
    "a key twice": ("{" + ",".join(f'"k{n}":1' for n in range(1_000_000)) + ',"k999999":2}', JSON),
    "many keys in JSON": ("{" + ",".join(f'"k{n}":1' for n in range(1_000_000)) + "}", JSON),
    "half a letter": ('{"id":"\\ud800","title":"\\udfff"}', JSON),
}




class Watch(threading.Thread):
    """The most memory that a service holds, in MB, looked at all the time."""

    def __init__(self, served: Served):
        super().__init__(daemon=True)
        self.served, self.most, self.over = served, served.memory, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, self.served.memory)


@contextmanager
def flat(served: Served) -> Iterator[None]:
    """Check that the service's memory stays as it is, all the time."""
    before, watch = served.memory, Watch(served)
    watch.start()
    yield
    watch.over.set()
    watch.join()
    assert watch.most - before <= FLAT, f"the service grew by {watch.most - before:.0f} MB"


@pytest.fixture(scope="module")
def served(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cwd = tmp_path_factory.mktemp("served")
    shutil.copytree(seeded, cwd / "catalog-data")
    with serving(cwd) as service:
        service.client.post("/episodes/validate", content=EPISODE, headers=YAML)
        yield service


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_in_an_episode_is_one_sentence_and_the_memory_stays_flat(served, name):
    body, kind = BOMBS[name]
    with flat(served):
        told(served.client.post("/episodes/validate", content=body, headers=kind), 422, "episode.")
    assert served.client.get("/health").status_code == 200
    assert not (served.log.parent / "stolen").exists() and "Traceback" not in served.log.read_text()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A picture of one bit a pixel, all zeros."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    made = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + made


def jpeg_that_claims(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = out.getvalue()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def zip_of_zeros() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(100_000_000))
    return out.getvalue()


def submitted(served_or_client: Any, files: list[tuple[str, bytes]], story: str = WITH_STILL) -> httpx.Response:
    parts = [("story", ("episode.yaml", story.encode())), *(("files", (name, data)) for name, data in files)]
    return served_or_client.post("/episodes/validate", files=parts)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (lambda: png(30_000, 30_000), "pixels"), (lambda: png(100, 100, (b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))), ""),
        (lambda: jpeg_that_claims(65_000, 65_000), "pixels"), (zip_of_zeros, "still.png"), (lambda: b"\0\0\0\x20ftypisom" + bytes(10_000_000), "still.png"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "still.png"), (lambda: b"", "still.png"),
    ],
)  # fmt: skip
def test_a_picture_that_is_a_bomb_or_none_is_one_sentence_and_the_memory_stays_flat(served, data, word):
    with flat(served):
        told(submitted(served.client, [("still.png", data())]), 422, word)


@pytest.mark.parametrize("name", ["../still.png", "/etc/passwd", "..\\still.png", "a/../../still.png", "x" * 300, "still.png\0.yaml", "episode.yaml", ".", "~root/still.png"])
def test_a_name_of_a_file_is_compared_and_never_a_path(client, catalog, name):
    before = {path for path in catalog.parent.rglob("*") if "desk" not in path.parts}
    told(submitted(client, [(name, png(8, 8))]), 422)
    assert {path for path in catalog.parent.rglob("*") if "desk" not in path.parts} == before


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_an_episode_reads_no_file_of_the_machine(client, catalog, name):
    (catalog / "desk" / SUBMITTED / "secret.png").write_bytes(png(8, 8)) if (catalog / "desk" / SUBMITTED).mkdir(parents=True, exist_ok=True) is None else None
    told(submitted(client, [], WITH_STILL.replace("still.png", name)), 422, "outside")


def test_uploads_that_are_no_forms_are_one_sentence(client):
    disposition = b'--x\r\nContent-Disposition: form-data; name="story"'
    for body, kind in [
        (b"x", "multipart/form-data"), (b"x", "multipart/form-data; boundary=x"), (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n\r\n--x--", "multipart/form-data; boundary=x"), (disposition + b"\r\n\r\nid: 1\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (disposition + b'; filename="+2AA-"\r\n\r\nid: 1\r\n--x--\r\n', "multipart/form-data; boundary=x; charset=utf-7"),
        (disposition + b'; filename="a"\r\n\r\nid: 1\r\n--x--\r\n', "multipart/form-data; boundary=x; charset=none"),
        (disposition + b"\r\n\r\n" + b"y" * 2_000_000 + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    ]:  # fmt: skip
        got = client.post("/episodes", content=body, headers={"content-type": kind})
        told(got, got.status_code)
        assert got.status_code in (400, 422), body[:80]
    told(client.post("/episodes", content=b"x", headers={"content-type": "image/svg+xml"}), 415, "svg")
    told(client.post("/episodes", files=[("story", ("e.yaml", EPISODE)), *(("files", (f"{n}", b"")) for n in range(600))]), 400)
    told(submitted(client, [("still.png", png(8, 8)), ("still.png", png(8, 8))]), 422, "twice")
    half = b'--x\r\nContent-Disposition: form-data; name="files"; filename="+2AA-"\r\n\r\nx\r\n'
    whole = half + disposition + b'; filename="e.yaml"\r\n\r\n' + EPISODE.encode() + b"\r\n--x--\r\n"
    told(client.post("/episodes", content=whole, headers={"content-type": "multipart/form-data; boundary=x; charset=utf-7"}), 422, "no such file")


def pour(port: int, head: str, size: int, chunked: bool = False, start: bytes = b"") -> bytes:
    """Send a head and so many bytes of a body, or as many as the server takes. Gives the beginning of what it answers."""
    block = b"x" * 1_000_000
    if chunked:
        block = b"%x\r\n%b\r\n" % (len(block), block)
    with socket.create_connection(("127.0.0.1", port), timeout=120) as link:
        try:
            link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + start)
            for _ in range(size // 1_000_000):
                link.sendall(block)
        except ConnectionError:
            pass  # it has answered, and closed
        try:
            return link.recv(4096)
        except ConnectionError:
            return b""


FORM = 'POST /episodes HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x'
PART_HEAD = b'--x\r\nContent-Disposition: form-data; name="story"; filename="e.yaml"\r\n\r\n'
UPLOADS = {
    "announced": (f"{FORM}\nContent-Length: {GIGABYTE}", False, PART_HEAD),
    "announced beyond all numbers": (f"{FORM}\nContent-Length: {'9' * 19}", False, PART_HEAD),
    "not announced": (f"{FORM}\nTransfer-Encoding: chunked", True, b"%x\r\n%b\r\n" % (len(PART_HEAD), PART_HEAD)),
    "a lie": (f"{FORM}\nContent-Length: 100", False, PART_HEAD),
    "no form": ("POST /reviews HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked", True, b""),
    "an episode alone": ("POST /episodes HTTP/1.1\nHost: localhost\nContent-Type: application/yaml\nTransfer-Encoding: chunked", True, b""),
    "nobody asked for a body": ("GET /episodes HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked", True, b""),
    "no address": ("POST /nothing HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked", True, b""),
    "a foreign host": ("POST /episodes HTTP/1.1\nHost: evil.example\nTransfer-Encoding: chunked", True, b""),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_gigabyte_is_refused_and_the_memory_stays_flat(served, name):
    head, chunked, start = UPLOADS[name]
    with flat(served):
        got = pour(served.port, head, GIGABYTE, chunked, start)
    assert not got or got.split(b" ")[1] in (b"400", b"413", b"421", b"404", b"200"), got[:200]
    assert name != "announced" or b" 413 " in got[:40]
    assert served.client.get("/health").status_code == 200
    assert not list((served.log.parent / "catalog-data" / "desk" / SUBMITTED).glob(f"{PART}*"))


def test_what_is_too_large_is_told_with_the_number(client):
    told(client.post("/reviews", content=b"x" * (BODY + 1), headers=JSON), 413, "4 MB")
    told(client.post("/episodes", content=b"x" * (BODY + 1), headers=YAML), 413, "4 MB")
    told(client.post("/episodes", headers={"content-length": str(UPLOAD + 1), "content-type": "multipart/form-data; boundary=x"}), 413, "256 MB")


def test_somebody_who_leaves_in_the_middle_leaves_nothing_behind(served):
    with socket.create_connection(("127.0.0.1", served.port)) as link:
        link.sendall(f"{FORM}\nContent-Length: 1000000".replace("\n", "\r\n").encode() + b"\r\n\r\n" + PART_HEAD)
        time.sleep(1)
    folder = served.log.parent / "catalog-data" / "desk" / SUBMITTED
    deadline = time.monotonic() + 30
    while list(folder.glob(f"{PART}*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(folder.glob(f"{PART}*")) and "Traceback" not in served.log.read_text()


def test_what_a_killed_service_left_is_removed_a_day_later(client, catalog):
    folder = catalog / "desk" / SUBMITTED
    for name in (f"{PART}old", f"{PART}new", "kept"):
        (folder / name).mkdir(parents=True)
        (folder / name / "story").write_text("x")
    os.utime(folder / f"{PART}old", (0, 0))
    os.utime(folder / "kept", (0, 0))
    assert client.post("/episodes/validate", content=EPISODE, headers=YAML).status_code == 200
    assert sorted(path.name for path in folder.iterdir()) == [f"{PART}new", "kept"]


def test_more_uploads_than_there_is_room_for_are_asked_to_come_again(client):
    for _ in range(uploads.UPLOADS):
        assert uploads.AT_ONCE.acquire(blocking=False)
    try:
        got = client.post("/episodes/validate", content=EPISODE, headers=YAML)
    finally:
        uploads.AT_ONCE.release(uploads.UPLOADS)
    told(got, 503, "try again")
    assert got.headers["retry-after"] and client.post("/episodes/validate", content=EPISODE, headers=YAML).status_code == 200


def test_an_episode_of_many_shots_is_read(client):
    got = client.post("/episodes/validate", content=shots(3_000), headers=JSON)
    assert got.status_code == 200 and got.json()["shots"] == 3_000


# SQL


WRITES = ["COPY takes TO '{}'", "ATTACH '{}'", "INSTALL httpfs", "LOAD httpfs", "PRAGMA database_list", "SET memory_limit='8GB'", "SELECT 1; SELECT 2", "SELECT 1; COPY takes TO '{}'",
          "/* SELECT */ DROP TABLE takes", "-- SELECT\nDROP VIEW verdicts", "CREATE TABLE x AS SELECT 1", "INSERT INTO takes SELECT * FROM takes", "DELETE FROM takes", "UPDATE takes SET seed = 1",
          "EXPORT DATABASE '{}'", "CALL enable_logging('QueryLog')", "EXPLAIN ANALYZE SELECT 1", "PREPARE x AS SELECT 1", "BEGIN", "VACUUM", "", ";", "\0"]  # fmt: skip
ESCAPES = ["SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('/proc/self/environ')", "SELECT * FROM glob('/*')",
           "SELECT * FROM read_json('http://127.0.0.1/')", "SELECT * FROM parquet_scan('s3://x/y')", "SELECT getenv('HOME')", "SELECT * FROM query('COPY takes TO ''{}''')", "SELECT * FROM duckdb_secrets()",
           "SELECT * FROM enable_logging('QueryLog', storage='file', storage_path='{}')", "SELECT * FROM catalog", "SELECT * FROM arrow_scan(1::POINTER, 1::POINTER, 1::POINTER)", "SELECT " + "(" * 9000]  # fmt: skip


def test_sql_that_writes_is_refused_before_it_is_run(catalog, tmp_path):
    """All of them are asked of the engine's parser, as a query is."""
    import duckdb

    with duckdb.connect(config=sql.LOCKED) as connection:
        for text in WRITES:
            with pytest.raises(sql.InputError, match=r"^query: "):
                sql._check(connection, text.format(tmp_path / "written"))


@pytest.mark.parametrize("text", ["COPY takes TO '{}'", "SELECT 1; ATTACH '{}'", *ESCAPES])
def test_sql_reaches_no_file_and_no_network(client, tmp_path, text):
    before = sorted(tmp_path.iterdir())
    told(client.post("/catalog/query", json={"sql": text.format(tmp_path / "written")}), 422, "query")
    assert sorted(tmp_path.iterdir()) == before


def test_sql_has_every_column_of_every_table(client):
    for table in ("takes", "workflows", "verdicts"):
        got = client.post("/catalog/query", json={"sql": f"SELECT * FROM {table}", "rows": 5})
        assert got.status_code == 200 and len(got.json()["columns"]) > 5, got.text
    got = client.post("/catalog/query", json={"sql": "SELECT now(), 'nan'::double, 1 AS a, 2 AS a, '\\x00'::blob, uuid(), MAP {'k': [1]}, INTERVAL 1 DAY"})
    assert got.status_code == 200 and got.json()["rows"][0][1:4] == ["nan", 1, 2], got.text


@pytest.mark.parametrize(
    "text",
    ["SELECT count(*) FROM range(10000000000000)", "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
     "SELECT length(repeat(repeat('x', 100000000), 100))", "SELECT list(range) FROM range(1000000000)", "SELECT repeat('é', 5000000) FROM range(100)"],
)  # fmt: skip
def test_an_endless_or_a_hungry_query_ends_and_others_are_served_meanwhile(served, text):
    answers: list[httpx.Response] = []
    asking = [threading.Thread(target=lambda: answers.append(served.client.post("/catalog/query", json={"sql": text}))) for _ in range(4)]
    with flat(served):
        for thread in asking:
            thread.start()
        while any(thread.is_alive() for thread in asking):
            assert served.client.get("/health").status_code == served.client.get("/episodes").status_code == 200
        for thread in asking:
            thread.join()
    for got in answers:
        told(got, got.status_code, "quer")
    assert {422} <= {got.status_code for got in answers} <= {422, 503}
    assert all(got.headers["retry-after"] for got in answers if got.status_code == 503)


def test_a_huge_answer_is_cut(client):
    got = client.post("/catalog/query", json={"sql": "SELECT repeat('\U0001f600', 10000) FROM range(5000)", "rows": 5000})
    assert got.status_code == 200 and got.json()["truncated"] and len(got.content) < 10_000_000
