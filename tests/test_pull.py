"""`tower models pull`: from a hub comes what was pinned, to the byte, whole or not at all. The hub is a small one, on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save_file

from actors.folders import identify_folder
from pipeline.registry.pull import Listed, _room
from pipeline.story.errors import InputError
from pipeline.story.workflow import WORKFLOWS

from .conftest import DEMO, Done, environment, refused, tower
from .published import LTX_VIDEO, MOTION_ADAPTER, STABLE_DIFFUSION, ltx_video, motion_adapter, stable_diffusion

REPO, COMMIT = "someone/anime", "0123456789abcdef0123456789abcdef01234567"
BLOCK = 10 * 2**20  # bytes that the library writes at once


@dataclass
class Hub:
    """What a hub answers: the listing of a commit, and files, of which large ones lie behind a redirect to another host.

    cut: of a file, after how many bytes its first answer breaks off. stall: the same, but the connection stays open and nothing comes.
    wrong: files whose last byte is another. seen: (method, path, Range, Authorization) of each request.
    """

    folder: Path
    endpoint: str = ""
    port: int = 0
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # name in the listing to file in the folder, where they differ
    over: threading.Event = field(default_factory=threading.Event)

    def listing(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            name = next((told for told, real in self.names.items() if real == name), name)
            if path.is_dir():
                rows.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
                continue
            data = path.read_bytes()
            row = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if path.suffix in (".safetensors", ".bin", ".ckpt"):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            rows.append(row)
        return rows

    def ranges(self, name: str) -> list[str]:
        """The Range of each request for the bytes of a large file; "" for the whole."""
        return [r for _, path, r, _ in self.seen if path == f"/cdn/{name}"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.seen.append((self.command, path, self.headers.get("Range", ""), self.headers.get("Authorization", "")))
        start, resolve = f"/api/models/{REPO}", f"/{REPO}/resolve/{COMMIT}/"
        if path in (f"{start}/revision/main", f"{start}/revision/{COMMIT}"):
            self.answer(json.dumps({"id": REPO, "sha": COMMIT, "siblings": []}).encode())
        elif path == f"{start}/tree/{COMMIT}":
            self.answer(json.dumps(hub.listing()).encode())
        elif path.startswith((resolve, "/cdn/")):
            name = path.removeprefix(resolve).removeprefix("/cdn/")
            if path.startswith(resolve) and name.endswith(".safetensors"):
                return self.answer(b"", 302, Location=f"http://localhost:{hub.port}/cdn/{name}")
            self.file(name, (hub.folder / name).read_bytes())
        else:
            codes = {f"{start}/": "RevisionNotFound", "/api/models/behind/terms/": "GatedRepo", "/api/models/is/broken/": ""}
            code = next((code for begin, code in codes.items() if path.startswith(begin)), "RepoNotFound")
            self.answer(b"{}", 404 if code else 500, **({"X-Error-Code": code} if code else {}))

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def file(self, name: str, data: bytes) -> None:
        if name in self.hub.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = self.hub.cut.pop(name, None) or self.hub.stall.get(name)
        self.wfile.write(data[first:end])
        if end:
            self.wfile.flush()
            self.hub.over.wait(120 if name in self.hub.stall else 0)
            self.close_connection = True


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    hub.endpoint = f"http://127.0.0.1:{hub.port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.over.set()
    server.shutdown()
    server.server_close()


def pulled(tmp_path: Path, hub: Hub, *words: str, **env: str) -> Done:
    return tower("models", "pull", *words, cwd=tmp_path, **settings(hub), **env)


def settings(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost", "HF_TOKEN_PATH": "/nowhere"}


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def big(folder: Path, name: str = "big.safetensors") -> bytes:
    """A LoRA's file of two and a half blocks."""
    folder.mkdir(exist_ok=True)
    save_file({"x": torch.randn(5 * BLOCK // 8, generator=torch.Generator().manual_seed(0))}, folder / name)
    return (folder / name).read_bytes()


def test_a_checkpoint_comes_whole_with_what_tower_opens_and_nothing_else(tmp_path, hub):
    stable_diffusion(hub.folder)
    wanted = STABLE_DIFFUSION
    done = pulled(tmp_path, hub, REPO, "--revision", COMMIT, "--as", "stills", HF_TOKEN="secret")
    assert done.code == 0, done.err
    folder = tmp_path / "models" / "stills"
    assert names(folder) == wanted and all((folder / n).read_bytes() == (hub.folder / n).read_bytes() for n in wanted)
    assert not identify_folder(folder).faults and "checkpoint: stills" in done.out and f"{len(wanted)} files" in done.out
    record = json.loads((tmp_path / "models" / "stills.source.json").read_text())
    assert (record["repository"], record["revision"], record["hub"]) == (REPO, COMMIT, hub.endpoint)
    assert record["sha256"] == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in wanted}
    assert names(tmp_path / "models") == {f"stills/{n}" for n in wanted} | {"stills.source.json"}, "nothing else is left there"
    assert {a for _, path, _, a in hub.seen if path.startswith("/cdn/")} == {""}, "another host is not shown the token"
    assert [(path, a) for _, path, _, a in hub.seen if not path.startswith("/cdn/") and a != "Bearer secret"] == []
    assert all(path.startswith((f"/api/models/{REPO}/", f"/{REPO}/resolve/{COMMIT}/", "/cdn/")) for _, path, _, _ in hub.seen), "nothing else is asked or told"
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("demo:stable-diffusion", "stills").replace("sd15_keyframe_demo", "mine")
    (tmp_path / "mine.yaml").write_text(text)
    assert tower("workflows", "register", "mine.yaml", cwd=tmp_path).code == 0
    assert tower("models", "check", "mine", cwd=tmp_path).code == 0


@pytest.mark.parametrize(("publish", "wanted", "use"), [(ltx_video, LTX_VIDEO, "checkpoint: anime"), (motion_adapter, MOTION_ADAPTER, "motion_adapter: anime")])
def test_shards_and_a_motion_adapter_come_without_second_variants_and_under_their_own_name(tmp_path, hub, publish, wanted, use):
    publish(hub.folder)
    done = pulled(tmp_path, hub, REPO, "--revision", COMMIT)
    assert done.code == 0 and use in done.out, done.err
    assert names(tmp_path / "models" / "anime") == wanted


def test_one_file_comes_alone_and_goes_on_where_its_connection_was_cut(tmp_path, hub):
    data = big(hub.folder / "Models", "hana.safetensors")
    hub.cut["Models/hana.safetensors"] = BLOCK + 1000
    done = pulled(tmp_path, hub, f"{REPO}/Models/hana.safetensors", "--revision", COMMIT)
    assert done.code == 0, done.err
    assert (tmp_path / "models" / "hana.safetensors").read_bytes() == data
    assert hub.ranges("Models/hana.safetensors") == ["", f"bytes={BLOCK}-"]
    assert names(tmp_path / "models") == {"hana.safetensors", "hana.safetensors.source.json"}


def test_a_killed_pull_goes_on_at_the_byte_that_it_had(tmp_path, hub):
    data = big(hub.folder)
    hub.stall["big.safetensors"] = 2 * BLOCK + 500
    words = ["models", "pull", f"{REPO}/big.safetensors", "--revision", COMMIT]
    part = tmp_path / "models" / ".pulling" / f"big.safetensors@{COMMIT[:12]}" / "big.safetensors.part"
    running = subprocess.Popen([sys.executable, "-m", "pipeline.cli", *words], cwd=tmp_path, env=environment(tmp_path, **settings(hub)))
    try:
        end = time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 2 * BLOCK:
            assert time.monotonic() < end and running.poll() is None
            time.sleep(0.05)
        refused(tower(*words, cwd=tmp_path, **settings(hub)), "is being pulled by another process")
    finally:
        running.kill()
        running.wait()
    hub.stall.clear()
    had = part.stat().st_size
    assert not (tmp_path / "models" / "big.safetensors").exists()
    assert tower(*words, cwd=tmp_path, **settings(hub)).out.startswith("1 files")
    assert hub.ranges("big.safetensors")[-1] == f"bytes={had}-" and had >= 2 * BLOCK
    assert (tmp_path / "models" / "big.safetensors").read_bytes() == data


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer_config.json"])
def test_a_wrong_byte_is_refused_and_pulled_anew(tmp_path, hub, name):
    stable_diffusion(hub.folder)
    hub.wrong.add(name)
    done = pulled(tmp_path, hub, REPO, "--revision", COMMIT, "--as", "stills")
    refused(done, f"{name} came with other bytes than the hub lists", "pull again")
    assert not (tmp_path / "models" / "stills").exists() and not (tmp_path / "models" / "stills.source.json").exists()
    hub.wrong.clear()
    asked = len(hub.seen)
    assert pulled(tmp_path, hub, REPO, "--revision", COMMIT, "--as", "stills").code == 0
    again = [path for _, path, _, _ in hub.seen[asked:]]
    assert f"/cdn/{name}" in again or f"/{REPO}/resolve/{COMMIT}/{name}" in again
    assert f"/{REPO}/resolve/{COMMIT}/model_index.json" not in again, "what had come right was kept"
    assert (tmp_path / "models" / "stills" / name).read_bytes() == (hub.folder / name).read_bytes()


def test_what_has_the_name_already_is_left_as_it_is_and_no_hub_is_asked(tmp_path, hub):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "a.safetensors").write_bytes(b"mine")
    refused(pulled(tmp_path, hub, REPO, "--revision", COMMIT, "--as", "mine"), "is there already", "--as")
    refused(pulled(tmp_path, hub, f"{REPO}/a.safetensors", "--revision", COMMIT), "is there already", "--as")
    assert (tmp_path / "models" / "a.safetensors").read_bytes() == b"mine" and not hub.seen


def test_a_branch_is_no_pin_and_its_commit_is_told(tmp_path, hub):
    stable_diffusion(hub.folder)
    refused(pulled(tmp_path, hub, REPO, "--revision", "main"), "'main' may mean another commit tomorrow", f"give --revision {COMMIT}")
    assert not (tmp_path / "models").exists()
    done = pulled(tmp_path, hub, REPO)
    refused(done, "--revision")


@pytest.mark.parametrize(
    ("words", "env", "told"),
    [
        ([REPO, "--revision", COMMIT], {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["the hub at http://127.0.0.1:9 cannot be reached"]),
        ([REPO, "--revision", COMMIT], {"HF_HUB_OFFLINE": "1"}, ["no hub is asked while HF_HUB_OFFLINE is set"]),
        (["nobody/here", "--revision", COMMIT], {}, ["has no repository nobody/here"]),
        (["behind/terms", "--revision", COMMIT], {}, ["behind/terms is gated", "HF_TOKEN"]),
        (["is/broken", "--revision", COMMIT], {}, ["refuses is/broken", "500"]),
        ([REPO, "--revision", "f" * 40], {}, [f"has no revision {'f' * 40}"]),
        ([f"{REPO}/b.safetensors", "--revision", COMMIT], {}, ["has no b.safetensors; it has a.safetensors"]),
        ([f"{REPO}/a.ckpt", "--revision", COMMIT], {}, ["a.ckpt of someone/anime is not a .safetensors file"]),
        ([REPO, "--revision", COMMIT], {}, ["holds no diffusers folder", "it has a.safetensors"]),
        (["anime", "--revision", COMMIT], {}, ["'anime' is no repository", "owner/repository"]),
        (["https://somewhere/a/b", "--revision", COMMIT], {}, ["is no repository"]),
        ([REPO, "--revision", COMMIT, "--as", "../x"], {}, ["--as '../x' is no name"]),
        ([f"{REPO}/a.safetensors", "--revision", COMMIT, "--as", "x"], {}, ["ends in .safetensors"]),
    ],
)
def test_what_cannot_be_pulled_is_one_sentence_and_leaves_nothing_behind(tmp_path, hub, words, env, told):
    (hub.folder / "a.safetensors").write_bytes(b"x")
    done = tower("models", "pull", *words, cwd=tmp_path, **settings(hub) | env)
    refused(done, *told)
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


def test_a_hub_cannot_write_outside_the_folder(tmp_path, hub):
    shutil.copytree(DEMO / "motion-adapter", hub.folder, dirs_exist_ok=True)
    (hub.folder / "evil.json").write_text("{}")
    hub.names["../../../evil.json"] = "evil.json"
    assert pulled(tmp_path, hub, REPO, "--revision", COMMIT).code == 0
    assert not list(tmp_path.glob("evil.json")) and not list((tmp_path / "models").rglob("evil.json"))


def test_a_terminal_shows_how_far_it_is_and_a_log_does_not(tmp_path, hub):
    big(hub.folder)
    words = [sys.executable, "-m", "pipeline.cli", "models", "pull", f"{REPO}/big.safetensors", "--revision", COMMIT]
    screen, side = pty.openpty()
    termios.tcsetwinsize(side, (40, 120))
    running = subprocess.Popen(words, cwd=tmp_path, env=environment(tmp_path, **settings(hub)), stdout=side, stderr=side)
    os.close(side)
    shown = b""
    with suppress(OSError):  # Linux's end of a terminal
        while block := os.read(screen, 4096):
            shown += block
    os.close(screen)
    assert running.wait() == 0 and b"big.safetensors: 100%" in shown, shown.decode()
    logged = pulled(tmp_path, hub, f"{REPO}/big.safetensors", "--revision", COMMIT, "--as", "b.safetensors")
    assert logged.code == 0 and logged.err == ""


def test_a_model_that_the_disk_cannot_hold_is_told_before_it_comes(tmp_path):
    with pytest.raises(InputError, match=r"1000000000\.0 GB are to come, and the disk of .* has .* GB free"):
        _room(tmp_path, [Listed("a.safetensors", 10**18, "", "")])
