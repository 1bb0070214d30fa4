// One shot on the board: its frames in a strip, what it is, and why.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { State } from "./ui.js";
import { STATES, count } from "./words.js";

const GAP = 8; // px between cards: part of a card's width, so that widths stay in proportion
const DENSITY = Math.min(2, devicePixelRatio);

export function Card({ card, scale, height, episode, aspect }) {
  const [plays, play] = useState(false);
  const width = Math.max(0, card.frames * scale - GAP);
  const cell = height * aspect;
  const cells = cellsOf(width / cell);
  return html`<a class="card ${STATES[card.status]?.[1] ?? ""}" href="#/${episode}/${card.shot}" style=${{ width: `${width}px` }}
      onMouseEnter=${() => play(true)} onMouseLeave=${() => play(false)} onFocus=${() => play(true)} onBlur=${() => play(false)}>
    <span class="pic ${card.clip ? "" : "none"}" style=${{ height: `${height}px`, "--cell": cells.many === 1 ? "100vw" : `${cells.fill ? width / cells.many : cell}px` }}>
      <${Strip} ...${{ card, cells, height, cell }} />
      ${plays && card.clip && html`<${Playing} card=${card} aspect=${aspect} />`}
      <span class="len">${card.frames} f</span>
    </span>
    <span class="foot">
      <span class="row"><span class="id">${card.shot}</span><${State} state=${card.status} step=${card.step} /></span>
      <span class="why">${whyOf(card)}</span>
    </span>
  </a>`;
}

function whyOf(card) {
  if (card.why) return card.why;
  return [card.takes ? count(card.takes, "take") : "", card.action].filter(Boolean).join(" · ");
}

// How many frames a card has room for. A last one of less than a fifth is left out; the others then fill the card.
function cellsOf(room) {
  const whole = Math.floor(room);
  const fill = whole === 0 || room - whole < 0.2;
  return { many: fill ? Math.max(1, whole) : whole + 1, fill };
}

// Frames of the clip, evenly spaced; of a shot that has only its keyframe yet, that one.
function Strip({ card, cells, height, cell }) {
  const high = Math.round(height * DENSITY);
  if (card.clip) return html`<img class=${cells.many === 1 ? "fill one" : cells.fill ? "fill" : "film"} loading="lazy" decoding="async" alt="" src="/takes/${card.clip}/filmstrip.jpg?frames=${Math.min(cells.many, 12)}&height=${high}" />`;
  if (card.keyframe) return html`<img class=${cells.many === 1 ? "fill" : "film"} loading="lazy" decoding="async" alt="" src="/takes/${card.keyframe}/frames/0.jpg?width=${Math.round(cell * DENSITY)}" />`;
  return null;
}

// The clip plays over the strip's first frame; the line below the picture runs as the shot does.
function Playing({ card, aspect }) {
  const video = useRef();
  const line = useRef();
  useEffect(() => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const start = setTimeout(() => video.current?.play().catch(() => {}), 120); // a pointer that only passes starts nothing
    const length = Math.min(card.clip_frames, card.frames) / card.fps;
    let next;
    const run = () => {
      if (!video.current) return;
      if (video.current.currentTime >= length) video.current.currentTime = 0;
      line.current.style.width = `${Math.min(100, (video.current.currentTime / length) * 100)}%`;
      next = requestAnimationFrame(run);
    };
    run();
    return () => {
      clearTimeout(start);
      cancelAnimationFrame(next);
    };
  }, [card.clip]);
  return html`<video ref=${video} src="/takes/${card.clip}/media" muted playsinline loop preload="auto" tabindex="-1" aria-hidden="true" style=${{ aspectRatio: aspect }}></video><i class="line" ref=${line}></i>`;
}
