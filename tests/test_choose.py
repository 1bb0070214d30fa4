"""The rule of which work a device does next: no Ray, no time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.choose import PATIENCE, Learned, Queue, Request, Seat, choose
from cluster.nodes import Node
from cluster.specs import ModelSpec

GB = 10**9
STILLS = ModelSpec("stills", dict, (), stage="keyframe", memory_bytes=4 * GB)
CLIPS = ModelSpec("clips", dict, (), stage="clip", memory_bytes=9 * GB)
TEXTS = ModelSpec("texts", dict, (), stage="prompt", memory_bytes=9 * GB)
PRIORITY = {"prompt": 3, "clip": 2, "keyframe": 1}


def seat(number: int = 0, memory: float | None = None, most: int | None = None, **labels: str) -> Seat:
    node = Node("a", "a", 1, 1, tuple(labels.items()), False)
    return Seat(number, node, most, None if memory is None else int(memory * GB))


def request(spec: ModelSpec, n: int = 0, **more: Any) -> Request:
    return Request(spec, None, {}, None, None, (-PRIORITY[spec.stage], n), asyncio.Future(loop=LOOP), **more)


LOOP = asyncio.new_event_loop()


def queue(*requests: Request) -> Queue:
    made = Queue()
    for r in requests:
        made.push(r)
    return made


def pick(at: Seat, waiting: Queue, others: tuple[Seat, ...] = (), learned: Learned | None = None) -> str | None:
    return choose(at, waiting, (at, *others), learned or Learned(), list(waiting.lanes))


def run_one(at: Seat, waiting: Queue, learned: Learned | None = None) -> tuple[str, list[Request], int]:
    """What the pool does with the choice: the batch, and how many models had to go."""
    known = learned or Learned()
    key = pick(at, waiting, learned=known)
    assert key
    batch = waiting.take(key)
    need = known.need(batch[0].spec, at)
    gone = at.evictions(key, need)
    at.place(key, need, gone)
    return key, batch, len(gone)


def test_on_a_big_card_nothing_ever_switches_and_later_stages_go_first():
    big, waiting = seat(memory=80), queue(request(STILLS), request(CLIPS, 1), request(TEXTS, 2), request(CLIPS, 3))
    done = [run_one(big, waiting) for _ in range(4)]
    assert [key for key, _, _ in done] == ["texts", "clips", "clips", "stills"] and sum(gone for _, _, gone in done) == 0
    assert set(big.resident) == {"texts", "clips", "stills"}


def test_on_a_small_card_what_is_loaded_goes_first_and_the_other_waits_its_turn():
    small = seat(memory=11)
    small.place("stills", 4 * GB, ())
    waiting = queue(request(CLIPS), *(request(STILLS, n) for n in range(3)))
    assert [run_one(small, waiting)[0] for _ in range(4)] == ["stills"] * 3 + ["clips"]
    assert list(small.resident) == ["clips"]


@pytest.mark.parametrize("live", [16, 64])
def test_the_more_shots_are_under_way_the_fewer_the_switches(live):
    """A small card renders 200 shots: texts, stills, clips, one model at a time. Three switches a round, no more."""
    small, waiting, switches, n = seat(memory=11), Queue(), 0, 0
    todo, follows = iter(range(200)), {"texts": STILLS, "stills": CLIPS}
    for _ in range(live):
        next(todo)
        waiting.push(request(TEXTS, n := n + 1))
    done = 0
    while done < 200:
        key, batch, gone = run_one(small, waiting)
        switches += gone
        for _ in batch:
            if key in follows:
                waiting.push(request(follows[key], n := n + 1))
            else:
                done += 1
                if next(todo, None) is not None:
                    waiting.push(request(TEXTS, n := n + 1))
    assert switches <= 3 * -(-200 // live)


def test_no_switch_where_those_who_have_the_model_are_done_sooner():
    here, there = seat(0, memory=11), seat(1, memory=11)
    here.place("clips", 9 * GB, ())
    there.place("stills", 4 * GB, ())
    learned = Learned(seconds={"stills": 1.0}, load={"stills": 20.0})
    few, many = queue(*(request(STILLS, n) for n in range(5))), queue(*(request(STILLS, n) for n in range(30)))
    assert pick(here, few, (there,), learned) is None
    assert pick(here, many, (there,), learned) == "stills"
    there.resident.clear()
    assert pick(here, few, (there,), learned) == "stills", "nobody else can"


def test_what_no_device_holds_is_not_passed_over_for_ever():
    small = seat(memory=11)
    small.place("clips", 9 * GB, ())
    waiting, order = queue(request(STILLS)), []
    for n in range(PATIENCE + 5):
        waiting.push(request(CLIPS, n))
        order.append(run_one(small, waiting)[0])
    assert order.index("stills") == PATIENCE and small.passed_over == 0, "and then all have their turn again"
    for n in range(3):
        waiting.push(request(CLIPS, PATIENCE + 10 + n))
    waiting.push(request(TEXTS))
    small.resident.clear()
    assert run_one(small, waiting)[0] == "texts" and small.passed_over == 0, "nobody waits in vain where nothing fits"


def test_nor_where_every_batch_is_sent_behind_another():
    small = seat(memory=11)
    small.place("clips", 9 * GB, ())
    waiting, sent = queue(request(STILLS), *(request(CLIPS, n) for n in range(2 * PATIENCE))), 0
    everything = (small, waiting, [small], Learned(), list(waiting.lanes))
    while choose(*everything, behind=True) == "clips":
        waiting.take("clips")
        sent += 1
        assert sent <= PATIENCE + 1, "the device never becomes free for what no device holds"
    assert choose(*everything) == "stills"


def test_the_least_recently_used_models_make_room():
    card = seat(memory=14)
    for key in ("texts", "stills"):
        card.place(key, 5 * GB, ())
    assert card.evictions("clips", 9 * GB) == ["texts"]
    card.place("texts", 5 * GB, ())
    assert card.evictions("clips", 9 * GB) == ["stills"]
    assert card.evictions("clips", 10 * GB) == ["stills", "texts"] and card.evictions("texts", 5 * GB) == []


def test_at_most_so_many_models_where_a_person_says_so():
    one = seat(most=1)
    one.place("stills", 0, ())
    assert one.evictions("clips", 0) == ["stills"] and one.evictions("stills", 0) == []


def test_clips_go_to_big_cards_and_stills_to_small_ones():
    big, small = seat(0, memory=80), seat(1, memory=6)
    waiting = queue(request(STILLS), request(CLIPS))
    assert (pick(big, waiting), pick(small, waiting)) == ("clips", "stills")
    only_clips = queue(request(CLIPS))
    assert pick(small, only_clips) is None


@pytest.mark.parametrize(
    ("wanted", "suits"),
    [("H100", True), ("A100", False), ("in(A100, H100)", True), ("in(A100,L4)", False), ("!H100", False), ("!in(A100,L4)", True)],
)
def test_labels_are_read_as_rays_label_selectors_are(wanted, suits):
    assert seat(**{"ray.io/accelerator-type": "H100"}).node.suits([("ray.io/accelerator-type", wanted)]) == suits


def test_a_model_that_nobody_has_measured_gets_a_small_card_for_itself():
    unknown, card = ModelSpec("new", dict, ()), seat(memory=11)
    card.place("stills", 4 * GB, ())
    assert Learned().need(unknown, card) == 11 * GB and card.evictions("new", 11 * GB) == ["stills"]
    learned = Learned()
    learned.note("new", 1.0, 2.0, 3 * GB)
    assert learned.need(unknown, card) == 3 * GB
    assert Learned().need(unknown, seat()) == 0


def test_a_batch_is_the_first_request_and_those_behind_it_that_may_share_it():
    spec = ModelSpec("stills", dict, (), batch_size=3, stage="keyframe", memory_bytes=4 * GB)

    def ask(n: int, together: Any = "a", **more: Any) -> Request:
        asked = request(spec, n, **more)
        asked.together = together
        return asked

    first, other, alone, warm, second, third, fourth = (
        ask(0), ask(1, "b"), ask(2, alone=True), ask(3, calls=()), ask(4), ask(5), ask(6),
    )  # fmt: skip
    waiting = queue(fourth, third, warm, alone, second, other, first)
    assert waiting.take("stills") == [first, second, third], "three at most, in their order, whenever they came"
    assert [waiting.take("stills") for _ in range(4)] == [[other], [alone], [warm], [fourth]]
    single = ModelSpec("clips", dict, (), batch_size=1, stage="clip")
    assert len(queue(request(single, 0), request(single, 1)).take("clips")) == 1
    pairs = ModelSpec("clips", dict, (), batch_size=2, stage="clip")
    three = [request(pairs, n) for n in range(3)]
    assert queue(*three).take("clips") == three[:2]
    assert len(queue(request(pairs, 0, alone=True), request(pairs, 1)).take("clips")) == 1
    assert len(queue(request(pairs, 0, calls=()), request(pairs, 1)).take("clips")) == 1


def test_a_request_knows_whether_it_waits_and_equal_ones_go_as_they_came():
    one, two = request(STILLS), request(STILLS)
    assert (one.waits, one.moved, one.alone, seat().passed_over) == (False, 0, False, 0)
    waiting = queue(one, two)
    assert one.waits and two.waits and list(waiting) == [one, two]
    assert waiting.take("stills") == [one] and (one.waits, two.waits) == (False, True)
    assert waiting.clear() == [two] and not two.waits and not waiting.lanes and not len(waiting)


def test_what_calls_have_shown_is_kept_and_the_latest_counts_half():
    learned = Learned()
    learned.note("stills", 0.5, 8.0, 3)
    learned.note("stills", 0.25, 0.0, 1)
    assert (learned.seconds, learned.load, learned.memory) == ({"stills": 0.375}, {"stills": 8.0}, {"stills": 3})
    learned.note("clips", 0.0, 0.0, None)
    assert "clips" not in {*learned.seconds, *learned.load, *learned.memory}


def test_a_switch_is_worth_as_long_as_those_who_hold_the_model_would_need():
    spec = ModelSpec("stills", dict, (), batch_size=4, stage="keyframe", memory_bytes=4 * GB)
    here, *there = (seat(n, memory=11) for n in range(3))
    for one in there:
        one.place("stills", 4 * GB, ())
    here.place("clips", 9 * GB, ())
    sixteen = queue(*(request(spec, n) for n in range(16)))  # four batches of 3 s on two devices
    for load, wanted in ((6.0, "stills"), (6.1, None), (1.6, "stills")):
        learned = Learned(seconds={"stills": 3.0}, load={"stills": load})
        assert pick(here, sixteen, tuple(there), learned) == wanted
    assert pick(here, sixteen, tuple(there)) == "stills", "nothing is known: one tries"
    assert pick(here, queue(request(spec)), tuple(there), Learned(load={"stills": 0.1})) is None, "it takes no time, as far as one knows"


def test_room_is_used_to_the_last_byte_and_the_last_model():
    card = seat(memory=9, most=2)
    assert card.could_ever(CLIPS, 9 * GB) and not card.could_ever(CLIPS, 9 * GB + 1)
    card.place("texts", 5 * GB, ())
    assert card.evictions("stills", 4 * GB) == [] and card.evictions("stills", 4 * GB + 1) == ["texts"]
    card.place("stills", 4 * GB, ())
    assert card.evictions("third", 0) == ["texts"]


def test_the_foremost_request_of_all_lanes_goes_first():
    big, waiting = seat(memory=80), queue(request(STILLS, 0), request(STILLS, 9))
    other = ModelSpec("others", dict, (), stage="keyframe", memory_bytes=GB)
    waiting.push(request(other, 5))
    assert [run_one(big, waiting)[0] for _ in range(3)] == ["stills", "others", "stills"]
    waiting = queue(request(other, 1), request(other, 2), request(STILLS, 3))
    assert pick(big, waiting) == "others"


def test_behind_a_batch_goes_only_what_is_held_and_shares_its_fate():
    card = seat(memory=80)
    held, fits = queue(request(CLIPS, 1)), queue(request(STILLS))
    card.place("clips", 9 * GB, ())

    def behind(waiting: Queue, *allowed: str) -> str | None:
        return choose(card, waiting, [card], Learned(), allowed or list(waiting.lanes), behind=True)

    assert behind(held) == "clips" and behind(fits) is None and pick(card, fits) == "stills"
    assert behind(queue(request(CLIPS, 0, alone=True))) is None
    assert behind(queue(request(CLIPS, 0, alone=True), request(CLIPS, 1))) is None
    assert behind(queue(request(CLIPS, 0), request(CLIPS, 1, alone=True))) == "clips"
    assert behind(held, "stills") is None, "what may not be sent is not sent"


@given(st.lists(st.tuples(st.sampled_from([TEXTS, STILLS, CLIPS]), st.integers(0, 5)), min_size=1, max_size=40), st.sampled_from([None, 9.5, 14.0, 80.0]))
def test_whatever_waits_everything_is_run_once(what, memory):
    card, waiting = seat(memory=memory), Queue()
    asked = [request(spec, n) for spec, n in what]
    for r in asked:
        waiting.push(r)
    run = Counter(id(r) for _ in range(len(asked)) if len(waiting) for r in run_one(card, waiting)[1])
    assert run == Counter(map(id, asked)) and not len(waiting)
    assert card.memory is None or sum(card.resident.values()) <= card.memory
