// One shot: its takes against each other, what gates and people say of them, and what a person decides.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { useData, useEvents } from "./data.js";
import { post } from "./http.js";
import { useKeys } from "./keys.js";
import { Stage, useDeck, wordOf } from "./player.js";
import { NoteDialog, NameDialog, RetakeDialog } from "./review.js";
import { ShotAside } from "./shot_aside.js";
import { Takes } from "./takes.js";
import { Timeline } from "./timeline.js";
import { Button, ProblemBox, State, Waiting, announce, myName, useWork } from "./ui.js";
import { count, shown, takeName } from "./words.js";

const STEP = 0.05; // of the width, for one press that moves the wipe

export function Shot({ episode, shot }) {
  const page = useData(`/episodes/${encodeURIComponent(episode)}/shots/${encodeURIComponent(shot)}`);
  useEvents(episode, (name, told) => (name === "reset" || name === "story" || told?.shot === shot || (name === "live" && told?.shots?.[shot])) && page.reload());
  const to = (other) => other && (location.hash = `#/${episode}/${other}`);
  if (!page.data) return html`<${Waiting} problem=${page.problem} />`;
  return html`<${Desk} key=${page.data.card.shot} ...${{ page: page.data, idle: !page.fresh, reload: page.now, to, back: () => (location.hash = `#/${episode}`) }} />`;
}

// A take that stands on A, the newest other one of its stage on B.
function firstSides({ takes, card }) {
  const shown = takes.filter((take) => take.media);
  const A = takes.find((take) => take.take === card.clip) ?? shown.filter((take) => take.stage === "clip").at(-1) ?? shown.at(-1);
  const B = shown.filter((take) => A && take.stage === A.stage && take.take !== A.take).at(-1);
  return { A: A?.take ?? null, B: B?.take ?? null };
}

function Desk({ page, idle, reload, to, back }) {
  const { card, takes } = page;
  const [sides, lay] = useState(() => firstSides(page));
  const [side, choose] = useState("A");
  const [mode, setMode] = useState("side");
  const [onion, setOnion] = useState(false);
  const [wipe, moveWipe] = useState(0.5);
  const [range, mark] = useState(null);
  const [pen, hold] = useState(null); // {take, frame, lines}: what is drawn on that frame of that take
  const [dialog, open] = useState(null);
  const deck = useDeck();
  const laid = useMemo(() => ({ A: takes.find((t) => t.take === sides.A) ?? null, B: takes.find((t) => t.take === sides.B) ?? null }), [takes, sides]);
  const take = laid[side] ?? laid.A;
  const both = laid.A && laid.B;
  useEffect(() => {
    if (!laid.A && takes.length) lay(firstSides(page));
  }, [takes]);
  const curves = useData(take?.stage === "clip" && take.media ? `/takes/${take.take}/curves` : null);
  const reviews = page.reviews.filter((review) => review.first_frame !== null && review.take === take?.take);
  const drawings = Object.fromEntries(["A", "B"].map((name) => [name, page.reviews.filter((r) => r.drawing?.length && r.take === sides[name] && deck.sides[name] && r.first_frame === deck.frameOf(deck.sides[name])).map((r) => r.drawing)]));

  const say = useWork(async (verdict) => {
    await post("/reviews", { take: take.take, verdict, note: "", by: myName() });
    announce(`${takeName(take.take)} of ${card.shot} is ${verdict === "approved" ? "approved" : "what stands now"}.`);
    await reload();
  });
  const decide = (verdict) => take && (myName() ? say.run(verdict) : open({ kind: "name", then: verdict }));
  const toggle = (name) => both && setMode(mode === name ? "side" : name);
  const into = (k) => {
    if (!takes[k]?.media) return;
    const name = laid.B || side === "A" || sides.A === takes[k].take ? side : "B";
    const other = name === "A" ? "B" : "A";
    lay({ [name]: takes[k].take, [other]: sides[other] === takes[k].take ? sides[name] : sides[other] });
  };
  const ends = (end) => {
    const other = range ?? [deck.frame, deck.frame];
    mark(end === 0 ? [deck.frame, Math.max(deck.frame, other[1])] : [Math.min(other[0], deck.frame), deck.frame]);
  };
  const faults = faultsOf(take, curves.data);
  const frame = frameIn(deck, laid[side] ? side : "A");
  const draw = (lines) => hold({ take: take.take, frame, lines });
  const takePen = () => {
    deck.stop();
    if (pen) hold(null);
    else draw([]);
  };
  const drawn = pen?.lines.length ? pen : null;
  const penHere = pen && (!drawn || (drawn.take === take.take && drawn.frame === frame));
  const writeNote = () => {
    deck.stop();
    open({ kind: "note", take: takes.find((other) => other.take === drawn?.take) ?? take, range: rangeOf(drawn?.frame ?? frame, drawn, range) });
  };
  useKeys(
    "shot",
    {
      play: () => deck.toggle(),
      next: () => deck.step(1),
      previous: () => deck.step(-1),
      first: () => deck.step(-deck.frames),
      last: () => deck.step(deck.frames),
      fault: () => faults.length && deck.step((faults.find((frame) => frame > deck.frame) ?? faults[0]) - deck.frame),
      faster: () => deck.faster(1),
      slower: () => deck.faster(-1),
      stop: () => deck.stop(),
      after: () => to(page.after),
      before: () => to(page.before),
      side: () => choose(side === "A" ? "B" : "A"),
      wipe: () => toggle("wipe"),
      difference: () => toggle("difference"),
      wipe_right: () => mode === "wipe" && moveWipe(Math.min(1, wipe + STEP)),
      wipe_left: () => mode === "wipe" && moveWipe(Math.max(0, wipe - STEP)),
      onion: () => setOnion(!onion),
      approve: () => decide("approved"),
      use: () => usable(take) && decide("picked"),
      retake: () => take && open({ kind: "retake" }),
      note: () => take && writeNote(),
      from: () => ends(0),
      until: () => ends(1),
      draw: () => take && takePen(),
      leave: () => (pen ? hold(null) : range ? mark(null) : back()),
      ...Object.fromEntries(Array.from({ length: 9 }, (_, k) => [`take${k + 1}`, () => into(k)])),
    },
    { idle },
  );
  const said = () => {
    open(null);
    hold(null);
    mark(null);
    return reload();
  };
  return html`<main class="page shot">
    <header class="head">
      <div class="title"><h1>${card.shot}</h1><span class="sub">${[card.title, page.sequence.title || page.sequence.sequence, count(card.frames, "frame"), card.framing, card.action].filter(Boolean).join(" · ")}</span><${State} state=${card.status} step=${card.step} /></div>
      <div class="does">
        <${Button} room="shot" action="before" disabled=${!page.before} press=${() => to(page.before)}>${page.before ?? "first"}</${Button}>
        <${Button} room="shot" action="after" disabled=${!page.after} press=${() => to(page.after)}>${page.after ?? "last"}</${Button}>
        <span class="gap"></span>
        <${Button} room="shot" action="retake" disabled=${!take} press=${() => open({ kind: "retake" })}>Retake…</${Button}>
        ${usable(take) && html`<${Button} room="shot" action="use" press=${() => decide("picked")}>Use ${takeName(take.take)}</${Button}>`}
        <${Button} room="shot" action="approve" main disabled=${!take?.media || say.busy || take.word?.verdict === "approved"} press=${() => decide("approved")}>${approveWords(take, both && side)}</${Button}>
      </div>
    </header>
    <div class="body columns">
      <div class="table">
        <${ProblemBox} problem=${say.problem} />
        ${take ? html`
          <${Stage} ...${{ deck, takes: laid, side, choose, mode, onion, wipe, moveWipe, pen: penHere ? pen : null, draw, drawings }} />
          <${Transport} ...${{ deck, both, mode, toggle, onion, setOnion, wipe, moveWipe, pen, takePen, draw, drawn: !penHere && drawn, range, mark, writeNote, side, choose }} />
          <${Timeline} ...${{ deck, side: laid[side] ? side : "A", curves: curves.data, range, notes: reviews }} />`
        : html`<p class="nothing quiet">${card.status === "rendering" ? `Its first take is being made: ${card.step}.` : "No take yet. It comes with the next render."}</p>`}
        <${Takes} ...${{ takes, sides, side, into, card }} />
      </div>
      <${ShotAside} ...${{ page, take, side: both && side, show: (frame) => deck.show(laid[side] ? side : "A", frame), lay: (name) => lay({ ...sides, [side]: name }) }} />
    </div>
    ${dialog?.kind === "note" && html`<${NoteDialog} ...${{ take: dialog.take, range: dialog.range, lines: drawn?.lines ?? [], said, close: () => open(null) }} />`}
    ${dialog?.kind === "retake" && html`<${RetakeDialog} ...${{ page, take, said, close: () => open(null) }} />`}
    ${dialog?.kind === "name" && html`<${NameDialog} named=${() => (open(null), say.run(dialog.then))} close=${() => open(null)} />`}
  </main>`;
}

const frameIn = (deck, side) => (deck.sides[side] ? deck.frameOf(deck.sides[side]) : 0);

// A drawing lies over the first frame of its note.
const rangeOf = (frame, drawn, range) => (drawn ? [frame, Math.max(frame, range?.[1] ?? frame)] : (range ?? [frame, frame]));

const usable = (take) => take && !take.stands && wordOf(take) === "accepted";

function approveWords(take, side) {
  if (!take) return "Approve";
  const name = `${side ? `${side} · ` : ""}${takeName(take.take)}`;
  if (take.word?.verdict === "approved") return `Approved: ${name}`;
  return `Approve ${name}${take.gate === "rejected" ? ", against the gate" : ""}`;
}

// The first frames of what gates name, in order.
function faultsOf(take, curves) {
  const named = (take?.findings ?? []).filter((finding) => finding.outcome !== "pass" && finding.frames.length).map((finding) => finding.frames[0]);
  const curved = (curves?.curves ?? []).flatMap((curve) => curve.at.map(([from]) => from));
  return [...new Set([...named, ...curved])].sort((a, b) => a - b);
}

function Transport({ deck, both, mode, toggle, onion, setOnion, wipe, moveWipe, pen, takePen, draw, drawn, range, mark, writeNote, side, choose }) {
  const moves = deck.frames > 1;
  return html`<div class="transport">
    ${moves && html`<${Button} room="shot" action="play" press=${() => deck.toggle()}>${deck.plays ? "Pause" : "Play"}</${Button}>
      <span class="count num">frame <b>${shown(deck.frame)}</b> of ${deck.frames}</span>
      <span class="quiet speed">${deck.plays && deck.speed !== 1 ? `${deck.speed}×` : ""}</span>`}
    <span class="gap"></span>
    ${both && html`<${Button} room="shot" action="side" press=${() => choose(side === "A" ? "B" : "A")}>Side ${side}</${Button}>
      <${Button} room="shot" action="wipe" on=${mode === "wipe"} press=${() => toggle("wipe")}>Wipe</${Button}>
      <${Button} room="shot" action="difference" on=${mode === "difference"} press=${() => toggle("difference")}>Difference</${Button}>`}
    ${moves && html`<${Button} room="shot" action="onion" on=${onion} press=${() => setOnion(!onion)}>Onion</${Button}>`}
    <${Button} room="shot" action="draw" on=${pen !== null} press=${takePen}>Draw</${Button}>
    <${Button} room="shot" action="note" press=${writeNote}>Note…</${Button}>
    ${mode === "wipe" && both && html`<label class="slide">A<input type="range" min="0" max="100" value=${Math.round(wipe * 100)} aria-label="How much of the width shows A, in percent" onInput=${(event) => moveWipe(event.target.value / 100)} />B</label>`}
    ${pen && html`<p class="hint" role="status">${drawn ? `Your drawing is on frame ${shown(drawn.frame)} of ${takeName(drawn.take)}; ` : `Draw on side ${side}, then `}<button type="button" class="link" onClick=${writeNote}>say what it shows</button>${!drawn && pen.lines.length > 0 && html` or <button type="button" class="link" onClick=${() => draw(pen.lines.slice(0, -1))}>take the last line away</button>`}.</p>`}
    ${range && html`<p class="hint">Frames ${shown(range[0])} to ${shown(range[1])} are marked. <button type="button" class="link" onClick=${writeNote}>Say what is there</button> or <button type="button" class="link" onClick=${() => mark(null)}>unmark them</button>.</p>`}
    ${onion && moves && html`<p class="hint quiet">${deck.plays ? "The onion skin shows while paused." : "The frames before and after lie over this one."}</p>`}
    ${mode === "difference" && both && html`<p class="hint quiet">A minus B, four times as bright: black where they are the same.</p>`}
  </div>`;
}
