// One shot: its takes against each other, what gates and people say of them, and what a person decides.

import { html, useState } from "./vendor/preact.js";
import { useData, useEvents } from "./data.js";
import { post } from "./http.js";
import { useKeys } from "./keys.js";
import { usePen } from "./pen.js";
import { Stage, useDeck, wordOf } from "./player.js";
import { NameDialog, NoteDialog, RetakeDialog } from "./review.js";
import { ShotAside } from "./shot_aside.js";
import { useSides } from "./sides.js";
import { Takes } from "./takes.js";
import { Timeline } from "./timeline.js";
import { Transport } from "./transport.js";
import { Button, ProblemBox, State, Waiting, announce, myName, useWork } from "./ui.js";
import { count, takeName } from "./words.js";

const STEP = 0.05; // of the width, for one press that moves the wipe

export function Shot({ episode, shot }) {
  const page = useData(`/episodes/${encodeURIComponent(episode)}/shots/${encodeURIComponent(shot)}`);
  useEvents(episode, (name, told) => {
    if (name === "live") page.change((was) => doing(was, told?.shots[was.card.shot] ?? ""));
    else if (told?.shot === shot || !["take", "review"].includes(name)) page.reload();
  });
  if (!page.data) return html`<${Waiting} problem=${page.problem} />`;
  return html`<${Desk} key=${page.data.card.shot} ...${{ page: page.data, idle: !page.fresh, reload: page.now }} />`;
}

// The page with what the render does to the shot at this moment.
function doing(page, step) {
  const { card } = page;
  if (step === card.step) return page;
  return { ...page, card: { ...card, step, status: step ? "rendering" : card.status } };
}

function Desk({ page, idle, reload }) {
  const { card, takes } = page;
  const deck = useDeck();
  const sides = useSides(page);
  const view = useView(sides);
  const { take } = sides;
  const frame = frameOn(deck, sides.shown);
  const pen = usePen(deck, take, frame);
  const [range, mark] = useState(null);
  const [dialog, open] = useState(null);
  const curves = useData(take && take.stage !== "keyframe" && take.media ? `/takes/${take.take}/curves` : null);
  const say = useWork(async (verdict) => {
    await post("/reviews", { take: take.take, verdict, note: "", by: myName() });
    announce(`${takeName(take.take)} of ${card.shot} is ${verdict === "approved" ? "approved" : "what stands now"}.`);
    await reload();
  });
  const decide = (verdict) => (myName() ? say.run(verdict) : open({ kind: "name", then: verdict }));
  const writeNote = () => {
    deck.stop();
    open({ kind: "note", take: takes.find((other) => other.take === pen.drawn?.take) ?? take, range: rangeOf(frame, pen.drawn, range) });
  };
  const said = () => {
    open(null);
    pen.putAway();
    mark(null);
    return reload();
  };
  const show = (n) => deck.show(sides.shown, n);
  const to = (shot) => (location.hash = `#/${page.episode}${shot ? `/${shot}` : ""}`);
  const leave = () => (pen.held ? pen.putAway() : range ? mark(null) : to());
  const actions = {
    ...deckActions(deck, faultsOf(take, curves.fresh && curves.data)),
    ...viewActions(view, sides),
    after: () => page.after && to(page.after),
    before: () => page.before && to(page.before),
    approve: () => take?.media && decide("approved"),
    use: () => usable(take) && decide("picked"),
    retake: () => take && open({ kind: "retake" }),
    note: () => take && writeNote(),
    from: () => mark([deck.frame, Math.max(deck.frame, range?.[1] ?? 0)]),
    until: () => mark([Math.min(deck.frame, range?.[0] ?? deck.frame), deck.frame]),
    draw: () => take && pen.toggle(),
    leave,
  };
  useKeys("shot", actions, { idle });
  return html`<main class="page shot">
    <${Head} ...${{ page, sides, actions, busy: say.busy }} />
    <div class="body columns">
      <div class="table">
        <${ProblemBox} problem=${say.problem} />
        ${take ? html`
          <${Stage} ...${{ deck, sides, view, pen, drawings: drawingsOn(deck, sides, page.reviews) }} />
          <${Transport} ...${{ deck, view, sides, pen, range, mark, writeNote }} />
          <${Timeline} ...${{ deck, side: sides.shown, curves: curves.data, busy: !curves.fresh, range, notes: page.reviews.filter((review) => review.first_frame !== null && review.take === take.take) }} />`
        : html`<p class="nothing quiet">${card.status === "rendering" ? `Its first take is being made: ${card.step}.` : "No take yet. It comes with the next render."}</p>`}
        <${Takes} takes=${takes} sides=${sides} />
      </div>
      <${ShotAside} ...${{ page, take, side: sides.both && sides.shown, show, lay: sides.put }} />
    </div>
    ${dialog?.kind === "note" && html`<${NoteDialog} ...${{ take: dialog.take, range: dialog.range, lines: pen.drawn?.lines ?? [], said, close: () => open(null) }} />`}
    ${dialog?.kind === "retake" && html`<${RetakeDialog} ...${{ page, take, said, close: () => open(null) }} />`}
    ${dialog?.kind === "name" && html`<${NameDialog} named=${() => (open(null), say.run(dialog.then))} close=${() => open(null)} />`}
  </main>`;
}

function Head({ page, sides, actions, busy }) {
  const { card, sequence, before, after } = page;
  const { take } = sides;
  const about = [card.title, sequence.title || sequence.sequence, count(card.frames, "frame"), card.framing, card.action];
  return html`<header class="head">
    <div class="title"><h1>${card.shot}</h1><span class="sub">${about.filter(Boolean).join(" · ")}</span><${State} state=${card.status} step=${card.step} /></div>
    <div class="does">
      <${Button} room="shot" action="before" disabled=${!before} press=${actions.before}>${before ?? "first"}</${Button}>
      <${Button} room="shot" action="after" disabled=${!after} press=${actions.after}>${after ?? "last"}</${Button}>
      <span class="gap"></span>
      <${Button} room="shot" action="retake" disabled=${!take} press=${actions.retake}>Retake…</${Button}>
      ${usable(take) && html`<${Button} room="shot" action="use" press=${actions.use}>Use ${takeName(take.take)}</${Button}>`}
      <${Button} room="shot" action="approve" main disabled=${!take?.media || busy || take.word?.verdict === "approved"} press=${actions.approve}>${approveWords(take, sides.both && sides.shown)}</${Button}>
    </div>
  </header>`;
}

function approveWords(take, side) {
  if (!take) return "Approve";
  const name = `${side ? `${side} · ` : ""}${takeName(take.take)}`;
  if (take.word?.verdict === "approved") return `Approved: ${name}`;
  return `Approve ${name}${take.gate === "rejected" ? ", against the gate" : ""}`;
}

// How the sides are compared.
function useView({ both }) {
  const [mode, setMode] = useState("side");
  const [onion, setOnion] = useState(false);
  const [wipe, setWipe] = useState(0.5);
  return {
    mode, onion, wipe,
    toggle: (name) => both && setMode(mode === name ? "side" : name),
    peel: () => setOnion(!onion),
    moveWipe: (share) => setWipe(Math.max(0, Math.min(1, share))),
  };
}

function viewActions(view, sides) {
  const numbers = Array.from({ length: 9 }, (_, k) => [`take${k + 1}`, () => sides.into(k)]);
  return {
    side: sides.other,
    wipe: () => view.toggle("wipe"),
    difference: () => view.toggle("difference"),
    wipe_right: () => view.mode === "wipe" && view.moveWipe(view.wipe + STEP),
    wipe_left: () => view.mode === "wipe" && view.moveWipe(view.wipe - STEP),
    onion: view.peel,
    ...Object.fromEntries(numbers),
  };
}

function deckActions(deck, faults) {
  return {
    play: () => deck.toggle(),
    next: () => deck.step(1),
    previous: () => deck.step(-1),
    first: () => deck.step(-deck.frames),
    last: () => deck.step(deck.frames),
    fault: () => faults.length && deck.step((faults.find((frame) => frame > deck.frame) ?? faults[0]) - deck.frame),
    faster: () => deck.faster(1),
    slower: () => deck.faster(-1),
    stop: () => deck.stop(),
  };
}

const frameOn = (deck, side) => (deck.sides[side] ? deck.frameOf(deck.sides[side]) : 0);

// A drawing lies over the first frame of its note.
const rangeOf = (frame, drawn, range) => (drawn ? [drawn.frame, Math.max(drawn.frame, range?.[1] ?? 0)] : (range ?? [frame, frame]));

const usable = (take) => take && !take.stands && wordOf(take) === "accepted";

// The first frames of what gates name, in order.
function faultsOf(take, curves) {
  const named = (take?.findings ?? []).filter((finding) => finding.outcome !== "pass" && finding.frames.length).map((finding) => finding.frames[0]);
  const curved = (curves ? curves.curves : []).flatMap((curve) => curve.at.map(([from]) => from));
  return [...new Set([...named, ...curved])].sort((a, b) => a - b);
}

// What people drew on the frames that are shown.
function drawingsOn(deck, sides, reviews) {
  const on = (name) => reviews.filter((r) => r.drawing?.length && r.take === sides.names[name] && r.first_frame === frameOn(deck, name)).map((r) => r.drawing);
  return { A: on("A"), B: on("B") };
}
