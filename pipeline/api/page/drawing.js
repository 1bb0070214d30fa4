// Lines over a frame, in shares of its width and height.

import { html, useRef } from "./vendor/preact.js";

const NEAR = 0.004; // points closer than this share of the picture add nothing

const pathOf = (line) => line.map(([x, y], k) => `${k ? "L" : "M"}${x} ${y}`).join("");

export function Drawing({ lines }) {
  return html`<svg class="drawing" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">${lines.map((line) => html`<path class="under" d=${pathOf(line)} /><path d=${pathOf(line)} />`)}</svg>`;
}

export function Pen({ lines, draw }) {
  const line = useRef(null);
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = (at, from, size) => Math.round(Math.max(0, Math.min(1, (at - from) / size)) * 10000) / 10000;
    return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
  };
  const begin = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    line.current = [point(event)];
    draw([...lines, line.current]);
  };
  const move = (event) => {
    if (!line.current) return;
    const [x, y] = point(event);
    const [lastX, lastY] = line.current.at(-1);
    if (Math.hypot(x - lastX, y - lastY) < NEAR) return;
    line.current = [...line.current, [x, y]];
    draw([...lines.slice(0, -1), line.current]);
  };
  const end = () => (line.current = null);
  return html`<div class="pen" onPointerDown=${begin} onPointerMove=${move} onPointerUp=${end} onPointerCancel=${end}><${Drawing} lines=${lines} /></div>`;
}
