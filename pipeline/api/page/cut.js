// The cut, played from the shots that stand, before anything is assembled.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { glyphOf, useKeys } from "./keys.js";
import { State } from "./ui.js";
import { seconds } from "./words.js";

// Two <video> elements take turns: while one plays a shot, the other has loaded the next, so that the cut has no gap.
export function CutDialog({ board, close }) {
  const shots = inTheCut(board);
  const [at, go] = useState(() => Math.max(0, shots.findIndex((card) => card.shot === document.activeElement?.querySelector?.(".id")?.textContent)));
  const [plays, play] = useState(true);
  const dialog = useRef();
  const line = useRef();
  const videos = [useRef(), useRef()];
  const began = useRef(0); // seconds of the shot that were played before the clock below started
  const card = shots[at];
  const turn = at % 2;
  const jump = (to) => {
    began.current = 0;
    if (to >= 0 && to < shots.length) go(to);
    else if (to >= shots.length) play(false);
  };
  const toggle = () => {
    if (!plays && at === shots.length - 1 && began.current >= lengthOf(card, board)) jump(0);
    play(!plays);
  };
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  useEffect(() => {
    load(videos[turn].current, card);
    load(videos[1 - turn].current, shots[at + 1]);
  }, [at]);
  useEffect(() => run({ video: videos[turn].current, card, board, plays, began, line: line.current, end: () => jump(at + 1) }), [at, plays]);
  useKeys("cut", { play: toggle, after: () => jump(at + 1), before: () => jump(at - 1), open: () => leave(board, card) }, { modal: true });
  const total = board.frames || 1;
  return html`<dialog ref=${dialog} class="cut" aria-label="The cut" onClose=${close}>
    <div class="screen">
      ${videos.map((ref, k) => html`<video ref=${ref} key=${k} class=${k === turn && card.clip ? "on" : ""} muted playsinline preload="auto" aria-hidden="true"></video>`)}
      ${!card.clip && html`<${Slate} card=${card} />`}
    </div>
    <div class="ruler" aria-hidden="true">${shots.map((each, k) => html`<button type="button" tabindex="-1" key=${each.shot} class=${k === at ? "on" : each.clip ? "" : "none"} style=${{ flexGrow: each.frames }} onClick=${() => jump(k)}></button>`)}<i ref=${line} data-start=${card.start / total} data-share=${card.frames / total}></i></div>
    <div class="caption"><span class="id">${card.shot}</span><${State} state=${card.status} /><span class="quiet">${seconds((card.start || 0) / board.fps)} of ${seconds(board.seconds)}${card.why ? ` · ${card.why}` : ""}</span><span class="gap"></span>
      <button type="button" class="btn" autofocus onClick=${toggle}>${plays ? "Pause" : "Play"}<kbd aria-hidden="true">${glyphOf("cut", "play")}</kbd></button>
      <button type="button" class="btn" onClick=${() => leave(board, card)}>Open ${card.shot}<kbd aria-hidden="true">${glyphOf("cut", "open")}</kbd></button>
      <button type="button" class="btn" onClick=${() => dialog.current.close()}>Board<kbd aria-hidden="true">esc</kbd></button></div>
  </dialog>`;
}

const leave = (board, card) => (location.hash = `#/${board.episode}/${card.shot}`);

// A dissolve lays a shot's end over the next one's beginning. Here the cut falls where the next shot begins.
function inTheCut(board) {
  const cards = board.sequences.flatMap((sequence) => sequence.shots);
  return cards.map((card, k) => ({ ...card, frames: (cards[k + 1]?.start ?? board.frames) - card.start }));
}

const lengthOf = (card, board) => card.frames / board.fps;

function load(video, card) {
  if (!card?.clip) return;
  const source = `/takes/${card.clip}/media`;
  if (video.getAttribute("src") !== source) video.src = source;
  video.currentTime = 0;
}

// A shot lasts as long as the story says. A clip that is longer is cut, one that is shorter holds its last frame.
function run({ video, card, board, plays, began, line, end }) {
  const from = performance.now();
  const before = began.current;
  if (plays && card.clip) video.play().catch(() => {});
  let next;
  const tick = () => {
    const gone = before + (plays ? (performance.now() - from) / 1000 : 0);
    began.current = gone;
    const share = Math.min(1, gone / lengthOf(card, board));
    line.style.left = `${(Number(line.dataset.start) + share * Number(line.dataset.share)) * 100}%`;
    if (plays && share >= 1) return end();
    if (plays) next = requestAnimationFrame(tick);
  };
  tick();
  return () => {
    cancelAnimationFrame(next);
    video.pause();
  };
}

function Slate({ card }) {
  return html`<div class="slate">${card.keyframe && html`<img src="/takes/${card.keyframe}/media" alt="" />`}<p><b class="id">${card.shot}</b> <${State} state=${card.status} /><br />${card.framing}${card.action ? `, ${card.action}` : ""}</p></div>`;
}
