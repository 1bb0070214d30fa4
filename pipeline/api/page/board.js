// The board of one episode: its shots in the order of the cut, each as wide as it is long.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { Aside } from "./board_aside.js";
import { Card } from "./card.js";
import { ContactSheet } from "./contact_sheet.js";
import { CutDialog } from "./cut.js";
import { useData, useEvents } from "./data.js";
import { post } from "./http.js";
import { useJob } from "./job.js";
import { keyOf, useKeys } from "./keys.js";
import { RenderDialog } from "./render_dialog.js";
import { HEIGHTS, useScale } from "./scale.js";
import { SubmitDialog, useDrop } from "./submit.js";
import { Button, ProblemBox, State, Waiting, announce, useWork } from "./ui.js";
import { STATES, count, doneAbout, minutes, seconds } from "./words.js";

const ORDER = ["accepted", "approved", "picked", "retake", "rendering", "exhausted", "rejected", "waiting"];

// `from`: the shot that a person comes back from.
export function Board({ episode, from }) {
  const path = `/episodes/${encodeURIComponent(episode)}`;
  const board = useData(path);
  const plan = useData(`${path}/plan`);
  const delivery = useData(`${path}/delivery`);
  const [dialog, open] = useState(null);
  const [given, submit] = useState(null);
  const over = useDrop(submit);
  useEvents(episode, (name, told) => {
    if (name === "live" && told) return board.change((was) => ({ ...was, live: told }));
    board.reload();
    if (name === "take") return; // a plan takes long; that of a render's end is soon enough
    plan.reload();
    delivery.reload();
    jobs.reload();
  });
  const control = useWork(async (action) => {
    await post(`${path}/${action}`, {});
    announce(action === "pause" ? "The render pauses: takes that are being made are finished, no new one begins." : "The render goes on.");
    board.reload();
  });
  const data = useMemo(() => board.data && now(board.data), [board.data]);
  const live = data?.live;
  const jobs = useJob(episode, live, () => (delivery.reload(), plan.reload()));
  const stale = !live && plan.data?.stale;
  const pause = () => live && control.run(live.paused ? "resume" : "pause");
  const [words, search] = useState("");
  const [chosen, choose] = useState(null);
  const field = useRef();
  useKeys("board", {
    search: () => field.current?.focus(),
    cut: () => data && open("cut"),
    render: () => (stale && !jobs.job ? open("render") : announce(live || jobs.job ? "The episode is being rendered." : "Nothing is stale.")),
    sheet: () => delivery.data?.contact_sheet?.length && open("sheet"),
    pause,
    leave: () => (location.hash = "#/"),
    right: () => walk(1),
    left: () => walk(-1),
    down: () => climb(1),
    up: () => climb(-1),
  });
  const there = Boolean(data);
  useEffect(() => {
    if (there && from) reach(cards().find((card) => card.hash.endsWith(`/${from}`)));
  }, [there]);
  if (!data) return html`<${Waiting} problem=${board.problem} />`;
  return html`<main class="page board ${over ? "over" : ""}">
    <header class="head">
      <div class="title"><h1>${data.title || episode}</h1><span class="sub">${episode} · ${count(shotsOf(data), "shot")} · ${seconds(data.seconds)}</span></div>
      <${Progress} board=${data} />
      <div class="does">
        <${Button} room="board" action="cut" press=${() => open("cut")}>Play the cut</${Button}>
        ${live && html`<${Button} room="board" action="pause" disabled=${control.busy} press=${pause}>${live.paused ? "Resume" : "Pause"}</${Button}>`}
        ${jobs.job?.cancellable && html`<${Button} press=${() => open("cancel")}>Cancel…</${Button}>`}
        ${!live && html`<${Button} room="board" action="render" main disabled=${!stale || Boolean(jobs.job)} press=${() => open("render")}>${jobs.job ? jobWords(jobs.job, data.run) : renderWords(plan)}</${Button}>`}
      </div>
    </header>
    <div class="body columns">
      <div class="sheet">
        <${ProblemBox} problem=${control.problem ?? board.problem} />
        ${jobs.failed && html`<p class="problem"><span class="state bad">failed</span> the last render: ${jobs.failed.message} <a href="#/cluster">Its log</a></p>`}
        <${Filter} ...${{ counts: data.counts, chosen, choose, words, search, field }} />
        <${Sequences} ...${{ board: data, chosen, words }} />
      </div>
      <${Aside} ...${{ board: data, plan: plan.data, delivery: delivery.data, open, submit }} />
    </div>
    ${dialog === "cut" && html`<${CutDialog} board=${data} close=${() => open(null)} />`}
    ${(dialog === "render" || dialog === "cancel") && html`<${RenderDialog} board=${data} plan=${plan.data} cancels=${dialog === "cancel" && jobs.job} close=${() => (open(null), board.reload(), jobs.reload())} />`}
    ${dialog === "sheet" && html`<${ContactSheet} pages=${delivery.data.contact_sheet} close=${() => open(null)} />`}
    ${given && html`<${SubmitDialog} given=${given} close=${() => (submit(null), board.reload(), plan.reload())} />`}
  </main>`;
}

// The board as it is this second: what the render does now goes before what the catalog said last.
function now(board) {
  const steps = board.live?.shots ?? {};
  const counts = Object.fromEntries(ORDER.map((state) => [state, 0]));
  const live = (card) => (steps[card.shot] ? { ...card, status: "rendering", step: steps[card.shot] } : card);
  const sequences = board.sequences.map((sequence) => ({ ...sequence, shots: sequence.shots.map(live) }));
  for (const { shots } of sequences) for (const card of shots) counts[card.status] += 1;
  return { ...board, sequences, counts };
}

const shotsOf = (board) => board.sequences.reduce((sum, { shots }) => sum + shots.length, 0);

// Before its first device works, a render loads models; after its last take it assembles the episode.
const jobWords = (job, run) => (job.run && run?.run === job.run && run.event === "finished" ? "Assembling…" : "Starting…");

function renderWords({ data, problem }) {
  if (problem) return "Render…";
  if (!data) return "Render";
  if (data.stale === 0) return "Nothing is stale";
  return `Render ${count(data.stale, "stale shot")}${data.unknown ? "" : ` · ${minutes(data.gpu_minutes)}`}`;
}

function Progress({ board }) {
  const { counts, live } = board;
  const done = counts.accepted + counts.approved + counts.picked;
  const all = shotsOf(board);
  const parts = ORDER.filter((state) => counts[state] && state !== "waiting");
  const told = [`${done} of ${all}`];
  if (live?.paused) told.push("paused");
  else if (live?.eta_seconds) told.push(`done about ${doneAbout(live)}`);
  if (live?.gpu_minutes) told.push(minutes(live.gpu_minutes));
  return html`<div class="progress">
    <div class="meter" role="img" aria-label=${parts.map((state) => `${counts[state]} ${STATES[state][0]}`).join(", ")}>${parts.map(
      (state) => html`<i key=${state} class=${STATES[state][1]} style=${{ flexGrow: counts[state] }}></i>`,
    )}<i class="rest" style=${{ flexGrow: counts.waiting }}></i></div>
    <span class="quiet">${told.join(" · ")}</span>
  </div>`;
}

function Filter({ counts, chosen, choose, words, search, field }) {
  const leave = (event) => {
    if (event.key !== "Escape") return;
    search("");
    event.target.blur();
  };
  return html`<div class="filter">
    <div class="chips" role="group" aria-label="Show only">${ORDER.filter((state) => counts[state] || state === chosen).map(
      (state) => html`<button type="button" key=${state} class="chip" aria-pressed=${String(chosen === state)} onClick=${() => choose(chosen === state ? null : state)}>
        <${State} state=${state} /> <b>${counts[state]}</b></button>`,
    )}</div>
    <label class="find"><span class="hidden">Search the shots</span><input type="search" ref=${field} value=${words} placeholder="Search" aria-keyshortcuts=${keyOf("board", "search")}
      onInput=${(event) => search(event.target.value)} onKeyDown=${leave} /><kbd aria-hidden="true">${keyOf("board", "search")}</kbd></label>
  </div>`;
}

function Sequences({ board, chosen, words }) {
  const [node, scale, size, resize] = useScale(board.sequences);
  const wanted = words.trim().toLowerCase();
  const fits = (card, sequence) => (!chosen || card.status === chosen) && (!wanted || textOf(card, sequence).includes(wanted));
  const shown = board.sequences.map((sequence) => ({ ...sequence, cards: sequence.shots.filter((card) => fits(card, sequence)) })).filter((sequence) => sequence.cards.length);
  return html`<div class="sequences ${size}" ref=${node}>
    ${shown.map((sequence) => html`<${Sequence} key=${sequence.sequence} ...${{ sequence, board, scale, size }} />`)}
    ${!shown.length && html`<p class="nothing quiet">${shotsOf(board) ? "No shot fits." : "This episode has no shots."}</p>`}
    <div class="sizes" role="group" aria-label="Size of the cards">${Object.keys(HEIGHTS).map(
      (name) => html`<button type="button" class="chip" aria-pressed=${String(size === name)} onClick=${() => resize(name)}>${name}</button>`,
    )}</div>
  </div>`;
}

const textOf = (card, sequence) =>
  [card.shot, card.title, card.framing, card.action, card.status, card.why, card.note, sequence.sequence, sequence.title].join(" ").toLowerCase();

function Sequence({ sequence, board, scale, size }) {
  const title = sequence.title || sequence.sequence;
  return html`<section class="sequence" aria-label=${title}>
    <h2>${title}<small>${sequence.title ? `${sequence.sequence} · ` : ""}${seconds(sequence.frames / board.fps)}${sequence.cards.length < sequence.shots.length ? ` · ${sequence.cards.length} of ${sequence.shots.length}` : ""}</small></h2>
    <div class="strip">${sequence.cards.map((card) => html`<${Placed} key=${card.shot} ...${{ card, board, scale, size }} />`)}</div>
  </section>`;
}

// Three hundred cards are drawn anew only where one of them changed: an equal text gives the same element, which Preact skips.
function Placed({ card, board, scale, size }) {
  const same = JSON.stringify([card, scale, size]);
  return useMemo(() => html`<${Card} ...${{ card, scale, height: HEIGHTS[size], episode: board.episode, aspect: board.width / board.height }} />`, [same]);
}

const cards = () => [...document.querySelectorAll(".card")];

function walk(by) {
  const all = cards();
  const at = all.indexOf(document.activeElement);
  reach(at < 0 ? all[0] : all[at + by]);
}

// The nearest card of the row below or above.
function climb(by) {
  const all = cards();
  const from = document.activeElement;
  if (!all.includes(from)) return reach(all[0]);
  const middle = (card) => card.offsetLeft + card.offsetWidth / 2;
  const top = (card) => Math.round(card.getBoundingClientRect().top);
  const beyond = all.filter((card) => (top(card) - top(from)) * by > 4);
  const row = beyond.length && top(by > 0 ? beyond[0] : beyond.at(-1));
  const near = beyond.filter((card) => top(card) === row).sort((a, b) => Math.abs(middle(a) - middle(from)) - Math.abs(middle(b) - middle(from)));
  reach(near[0]);
}

function reach(card) {
  card?.focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest" });
}
