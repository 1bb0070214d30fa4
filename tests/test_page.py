"""The review page in a real browser, before a real service."""

from __future__ import annotations

import gzip
import io
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from .browser import CHROMIUM, SEEN, assert_accessible, chromium, opened, with_many_takes
from .conftest import EPISODE, PROJECT, Rendered, tower
from .journey import from_file_to_movie
from .service import Served, serving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed on this machine")

PAGE = PROJECT / "pipeline" / "api" / "page"
SHOT = "#/E90/SH0010"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=SEEN)
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def desk(rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service over a copy of the finished render: SH0010 has eight clips, SH0020 a note, and a retake of SH0030 is asked for."""
    cwd = tmp_path_factory.mktemp("desk")
    shutil.copytree(rendered.cwd / "catalog-data", cwd / "catalog-data")
    shutil.copy(rendered.file, cwd / "episode.yaml")
    with_many_takes(cwd)
    for words in (["SH0030", "--retake", "--note", "the hair flickers"], ["SH0020", "--note", "calm"]):
        assert tower("review", "E90", *words, "--by", "mika", cwd=cwd).code == 0
    with serving(cwd) as service:
        yield service


def test_an_episode_goes_from_its_file_to_a_movie_without_leaving_the_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "episode.yaml").write_text(EPISODE)
    with serving(tmp_path) as service, opened(browser, url(service)) as page:
        from_file_to_movie(page, service, tmp_path / "episode.yaml")


def test_a_faulty_episode_is_shown_with_its_line_and_nothing_is_kept(browser: Browser, desk: Served, tmp_path: Path) -> None:
    file = tmp_path / "episode.yaml"
    file.write_text(EPISODE.replace("id: E90", "id: E91").replace("frames: 36", "frames: many"))
    line = next(n for n, text in enumerate(EPISODE.splitlines(), 1) if "frames: 36" in text)
    with opened(browser, url(desk), faults=False) as page:
        page.get_by_role("button", name="Submit an episode").click()
        page.locator("dialog input[type=file]").set_input_files(file)
        expect(page.locator("dialog .problem")).to_contain_text("SH0020")
        expect(page.locator(".place .here")).to_contain_text(str(line))
        expect(page.locator(".place .here")).to_contain_text("frames: many")
        expect(page.locator("dialog .btn.main")).to_be_disabled()
    assert [row["episode"] for row in desk.client.get("/episodes").json()] == ["E90"]


VIEWS = {  # name: address, and the keys and presses that lead there
    "episodes": ("#/", []),
    "board": ("#/E90", []),
    "shot": (SHOT, ["]", "p"]),
    "wipe": (SHOT, ["w"]),
    "difference": (SHOT, ["d", "x", "o"]),
    "workflows": ("#/workflows", []),
    "cluster": ("#/cluster", []),
    "submit": ("#/", [".head .btn.main"]),
    "keys": ("#/E90", ["?"]),
    "render": ("#/E90", ["r"]),
    "cut": ("#/E90", ["Space"]),
    "retake": (SHOT, ["r", "dialog summary"]),
    "note": (SHOT, ["n"]),
    "name": (SHOT, ["a"]),
    "evidence": ("#/workflows", [".rows .btn >> nth=0"]),
}


@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_view_is_accessible_and_fits(browser: Browser, desk: Served, theme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    for name, (address, steps) in VIEWS.items():
        with opened(browser, url(desk, address), viewport=size, color_scheme=theme) as page:
            settle(page)
            for step in steps:
                page.locator(step).click() if step[1:] and step != "Space" else page.keyboard.press(step)
            page.wait_for_timeout(300)
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_page_is_small_and_needs_nothing_from_elsewhere(browser: Browser, desk: Served) -> None:
    scripts = [*PAGE.glob("*.js"), *PAGE.glob("vendor/*.js")]
    assert sum(len(gzip.compress(script.read_bytes())) for script in scripts) <= 100_000
    asked: list[str] = []
    with opened(browser, "about:blank") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url(desk, SHOT))
        settle(page)
    assert [address for address in asked if not address.startswith((url(desk), "data:"))] == []


def test_the_player_shows_exactly_the_frame_that_it_names(browser: Browser, desk: Served, rendered: Rendered) -> None:
    frames = decoded(rendered.media(rendered.accepted("clip")["SH0010"]))
    with opened(browser, url(desk, SHOT)) as page:
        settle(page)
        for n in random.Random(7).sample(range(len(frames)), 20):
            go(page, n)
            assert_shows(page, frames, n)


def test_where_the_video_shows_no_frame_the_frame_s_picture_lies_over_it(browser: Browser, desk: Served, rendered: Rendered) -> None:
    frames = decoded(rendered.media(rendered.accepted("clip")["SH0010"]))
    with opened(browser, "about:blank", faults=False) as page:
        page.route("**/media", lambda route: route.abort())
        page.goto(url(desk, SHOT))
        settle(page)
        go(page, 41)
        expect(page.locator(".side.A .cover")).to_be_visible()
        assert_shows(page, frames, 41)


# What can be seen after each key, and what is pressed before it.
NAMED = "(([, , shot]) => !shot || shot === document.querySelector('h1').textContent)(location.hash.split('/'))"
FRAME = "Number(document.querySelector('.side.A').dataset.frame)"
PLAYS = "document.querySelector('.side.A video').paused === false"
FOCUS = "document.activeElement.querySelector('.id')?.textContent"
DIALOG = "document.querySelector('dialog[open] h2')?.textContent"
CUT = "document.querySelector('.cut .caption .id')?.textContent"
ON_B = "document.querySelector('.side.B figcaption').textContent"
EFFECTS: dict[tuple[str, str], tuple[list[str], str]] = {
    ("anywhere", "help"): ([], f"{DIALOG} === 'Keys'"),
    ("anywhere", "theme"): ([], "document.documentElement.dataset.theme === 'light'"),
    ("board", "search"): ([], "document.activeElement.type === 'search'"),
    ("board", "right"): (["ArrowRight"], f"{FOCUS} === 'SH0020'"),
    ("board", "left"): (["ArrowRight", "ArrowRight"], f"{FOCUS} === 'SH0010'"),
    ("board", "down"): (["ArrowRight"], f"{FOCUS} === 'SH0030'"),
    ("board", "up"): (["ArrowRight", "ArrowDown"], f"{FOCUS} === 'SH0010'"),
    ("board", "cut"): ([], f"{CUT} === 'SH0010'"),
    ("board", "render"): ([], f"{DIALOG} === 'Render 1 stale shot'"),
    ("board", "leave"): ([], "document.querySelector('h1').textContent === 'Episodes'"),
    ("cut", "play"): (["Space"], "document.querySelector('.caption .btn').textContent.startsWith('Play')"),
    ("cut", "after"): (["Space"], f"{CUT} === 'SH0020'"),
    ("cut", "before"): (["Space", "ArrowRight"], f"{CUT} === 'SH0010'"),
    ("cut", "open"): (["Space"], "location.hash === '#/E90/SH0010'"),
    ("shot", "play"): ([], PLAYS),
    ("shot", "next"): ([], f"{FRAME} === 1"),
    ("shot", "previous"): (["End"], f"{FRAME} === 119"),
    ("shot", "first"): (["End"], f"{FRAME} === 0"),
    ("shot", "last"): ([], f"{FRAME} === 120"),
    ("shot", "fault"): (["s"], f"{FRAME} === 38"),
    ("shot", "faster"): (["Space"], "document.querySelector('.speed').textContent === '2×'"),
    ("shot", "stop"): (["Space"], f"!({PLAYS})"),
    ("shot", "slower"): (["Space"], "document.querySelector('.speed').textContent === '0.5×'"),
    ("shot", "after"): ([], "location.hash === '#/E90/SH0020'"),
    ("shot", "before"): (["Alt+ArrowRight"], "location.hash === '#/E90/SH0010'"),
    ("shot", "side"): ([], "document.querySelector('.side.B.chosen')"),
    ("shot", "wipe"): ([], "document.querySelector('.stage.wipe')"),
    ("shot", "wipe_right"): (["w"], "document.querySelector('.slide input').value === '55'"),
    ("shot", "wipe_left"): (["w"], "document.querySelector('.slide input').value === '45'"),
    ("shot", "difference"): ([], "document.querySelector('.stage.difference')"),
    ("shot", "onion"): (["ArrowRight"], "document.querySelectorAll('.side.A .onion').length === 2"),
    ("shot", "retake"): ([], f"{DIALOG}?.startsWith('Retake of SH0010')"),
    ("shot", "note"): ([], f"{DIALOG} === 'Note on clip v008'"),
    ("shot", "from"): (["End"], "document.querySelector('.marks .range')"),
    ("shot", "until"): (["End"], "document.querySelector('.marks .range')"),
    ("shot", "draw"): ([], "document.querySelector('.pen')"),
    ("shot", "leave"): ([], "location.hash === '#/E90'"),
    ("shot", "approve"): ([], f"{DIALOG} === 'Who says so?'"),
    ("shot", "use"): (["s", "2"], f"{DIALOG} === 'Who says so?'"),
    ("shot", "take1"): (["s"], f"{ON_B}.includes('keyframe v001')"),
    **{("shot", f"take{k}"): (["s", "1"], f"{ON_B}.includes('clip v00{k - 1}')") for k in range(2, 10)},
}
NEEDS_A_RENDER = {("board", "pause"), ("board", "sheet")}  # pressed in the first test of this file


def test_every_key_of_the_table_acts(browser: Browser, desk: Served) -> None:
    with opened(browser, url(desk, "#/E90")) as page:
        table = [tuple(row) for row in page.evaluate("import('/page/keys.js').then((keys) => keys.TABLE)")]
    assert {(room, action) for room, action, *_ in table} == EFFECTS.keys() | NEEDS_A_RENDER
    with opened(browser, url(desk, "#/cluster"), color_scheme="dark") as page:
        for room, action, key, _ in table:
            if (room, action) in NEEDS_A_RENDER:
                continue
            before, effect = EFFECTS[room, action]
            show(page, *(("#/E90/SH0010", "SH0010") if room == "shot" else ("#/E90", "A test")))
            for pressed in before:
                page.keyboard.press(pressed)
                until(page, NAMED)
            assert not page.evaluate(f"Boolean({effect})"), (room, action)
            page.keyboard.press(key.replace("alt+", "Alt+").replace("shift+", "Shift+"))
            until(page, effect)


def test_no_key_acts_while_somebody_types(browser: Browser, desk: Served) -> None:
    every = "adjklnoprstuwx?/[]123456789 "
    with opened(browser, url(desk, SHOT)) as page:
        settle(page)
        page.keyboard.press("n")
        page.keyboard.type(every)
        expect(page.get_by_label("What you see")).to_have_value(every)
        expect(page.locator("dialog")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
        expect(page.locator(".stage.side")).to_have_count(1)
        page.goto(url(desk, "#/E90"))
        page.locator(".card").first.wait_for()
        page.keyboard.press("/")
        page.keyboard.type(every)
        expect(page.get_by_label("Search the shots")).to_have_value(every)
        expect(page.locator("dialog")).to_have_count(0)


def test_who_comes_back_from_a_shot_is_at_its_card(browser: Browser, desk: Served) -> None:
    with opened(browser, url(desk, "#/E90/SH0020")) as page:
        settle(page)
        page.keyboard.press("Escape")
        until(page, f"{FOCUS} === 'SH0020'")


def test_a_key_can_be_changed_and_stays_so_and_none_acts_twice(browser: Browser, desk: Served) -> None:
    with opened(browser, url(desk, SHOT)) as page:
        settle(page)
        page.keyboard.press("?")
        page.get_by_role("button", name="wipe between A and B").click()
        page.keyboard.press("d")
        expect(page.locator(".said")).to_contain_text("already is “difference of A and B”")
        page.get_by_role("button", name="wipe between A and B").click()
        page.keyboard.press("g")
        expect(page.locator(".said")).to_contain_text("g now is “wipe between A and B”")
        page.reload()
        settle(page)
        page.keyboard.press("w")
        page.keyboard.press("g")
        expect(page.locator(".stage.wipe")).to_have_count(1)
        expect(page.get_by_role("button", name="Wipe")).to_have_attribute("aria-keyshortcuts", "g")


def test_a_note_on_a_range_with_a_drawing_is_kept_and_shown_where_it_belongs(browser: Browser, desk: Served) -> None:
    with opened(browser, url(desk, "#/E90/SH0020")) as page:
        settle(page)
        for key in ("ArrowRight", "ArrowRight", "p"):
            page.keyboard.press(key)
        pen = page.locator(".pen").bounding_box()
        assert pen
        page.mouse.move(pen["x"] + pen["width"] / 4, pen["y"] + pen["height"] / 2)
        page.mouse.down()
        page.mouse.move(pen["x"] + pen["width"] / 2, pen["y"] + pen["height"] / 4, steps=4)
        page.mouse.up()
        page.keyboard.press("n")
        page.get_by_label("What you see").fill("this strand")
        page.get_by_label("to frame").fill("6")
        page.get_by_label("Your name").fill("Mika")
        page.get_by_role("button", name="Keep the note").click()
        expect(page.locator(".drawing")).to_have_count(1)
        page.keyboard.press("ArrowRight")
        expect(page.locator(".drawing")).to_have_count(0)
        page.get_by_role("button", name="frames 3–6, drawn").click()
        expect(page.locator(".drawing")).to_have_count(1)
    note = desk.client.get("/reviews?episode=E90&shot=SH0020").json()[0]
    assert (note["verdict"], note["note"], note["by"], note["first_frame"], note["last_frame"]) == ("note", "this strand", "Mika", 2, 5)
    assert note["drawing"][0][0] == pytest.approx([0.25, 0.5], abs=0.01) and note["drawing"][0][-1] == pytest.approx([0.5, 0.25], abs=0.01)


def test_a_person_s_word_against_the_gate_is_said_beside_what_the_gate_says(browser: Browser, desk: Served) -> None:
    with opened(browser, url(desk, SHOT)) as page:
        settle(page)
        page.keyboard.press("s")
        page.keyboard.press("4")
        page.get_by_role("button", name="Approve B · clip v003, against the gate").click()
        page.get_by_label("Your name").fill("Mika")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".verdict")).to_contain_text("approved · Mika")
        expect(page.locator(".verdict")).to_contain_text("The gate alone says: rejected for flicker.")
        page.keyboard.press("Escape")
        expect(page.locator(".card", has_text="SH0010")).to_contain_text("flicker")
        expect(page.locator(".card", has_text="SH0010").locator(".state")).to_have_text("approved")


def test_a_desk_with_a_token_asks_for_it_once_and_shows_pictures_too(browser: Browser, copied: Path) -> None:
    token = "a-lantern-by-the-sea"
    with serving(copied, TOWER_DESK_TOKEN=token) as service, opened(browser, url(service, SHOT), faults=False) as page:
        page.get_by_label("Token", exact=True).fill("something else entirely")
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("dialog .problem")).to_be_visible()
        page.get_by_label("Token", exact=True).fill(token)
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("dialog")).to_have_count(0)
        settle(page)
        assert page.evaluate("document.querySelector('.side.A video').videoWidth") == 96
        page.reload()
        settle(page)
        expect(page.locator("dialog")).to_have_count(0)


def test_a_cut_connection_is_told_and_what_was_missed_comes_by_itself(browser: Browser, copied: Path) -> None:
    with ExitStack() as pages:
        with serving(copied) as service:
            page = pages.enter_context(opened(browser, url(service, "#/E90"), faults=False))
            settle(page)
        expect(page.locator(".heard")).to_have_text("connection lost, trying again")
        expect(page.locator(".card")).to_have_count(3)  # what was there stays
        assert tower("review", "E90", "SH0020", "--note", "said meanwhile", "--by", "aoi", cwd=copied).code == 0
        with serving(copied, "--port", str(service.port)):
            expect(page.locator(".heard")).to_have_text("")
            expect(page.locator(".happened li").first).to_contain_text("said meanwhile")


def show(page: Page, address: str, heading: str) -> None:
    """A view as it is when it is opened: dialogs closed, nothing chosen or changed before."""
    if page.locator("dialog[open]").count():
        page.keyboard.press("Escape")
    page.evaluate("localStorage.clear(); delete document.documentElement.dataset.theme; location.hash = '#/cluster'")
    expect(page.get_by_role("heading", level=1)).to_have_text("Cluster")
    page.evaluate(f"location.hash = '{address}'")
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    settle(page)


def url(service: Served, address: str = "") -> str:
    return f"http://127.0.0.1:{service.port}/{address}"


def settle(page: Page) -> None:
    """Until the view has its data, and each video its first frame."""
    page.wait_for_selector("main .head")
    if page.locator(".page.board").count():
        page.get_by_role("button", name="stale").wait_for()
    until(page, "[...document.querySelectorAll('.side video')].every((video) => video.readyState > 1 || video.error)")
    page.wait_for_timeout(300)


def until(page: Page, true: str) -> None:
    """Until a script's expression is true. Playwright's own way needs `eval` in the page, which its policy forbids."""
    for _ in range(SEEN // 100):
        if page.evaluate(f"Boolean({true})"):
            return
        page.wait_for_timeout(100)
    raise AssertionError(true)


def go(page: Page, frame: int) -> None:
    page.locator(".scrub input").fill(str(frame))
    expect(page.locator(".side.A")).to_have_attribute("data-frame", str(frame))
    page.wait_for_timeout(700)


def decoded(file: Path) -> list[np.ndarray]:
    with av.open(str(file)) as clip:
        return [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]


def assert_shows(page: Page, frames: list[np.ndarray], n: int) -> None:
    """The picture on side A is frame n: at most 3 levels away on average, and nearer than its neighbours."""
    shown = Image.open(io.BytesIO(page.locator(".side.A .frame").screenshot())).convert("RGB")
    seen = np.asarray(shown, dtype=float)

    def apart(k: int) -> float:
        there = np.asarray(Image.fromarray(frames[k]).resize(shown.size, Image.Resampling.BILINEAR), dtype=float)
        return float(np.abs(seen - there)[8:-8, 8:-8].mean())

    near = {k: apart(k) for k in range(max(0, n - 2), min(len(frames), n + 3))}
    assert min(near, key=near.__getitem__) == n and near[n] <= 3, near
