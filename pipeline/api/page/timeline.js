// Under the player: where the take is, the range that a person marks, and the gate's curves, all on one scale.

import { html, useState } from "./vendor/preact.js";
import { figure, frames as frameText, plain, saying, shown, threshold as limit } from "./words.js";

export function Timeline({ deck, side, curves, range, notes }) {
  const all = deck.frames;
  const share = (frame) => `${all > 1 ? (frame / (all - 1)) * 100 : 0}%`;
  const [more, show] = useState(false);
  const list = curves?.curves ?? [];
  // Without a fault the first curve is enough; a fault's curve is always there.
  const first = list.filter((curve, k) => k === 0 || curve.outcome !== "pass");
  const drawn = more ? list : first;
  if (all < 2) return null;
  return html`<section class="timeline" aria-label="Frames and curves">
    <div class="scrub">
      <span class="marks" aria-hidden="true">
        ${range && html`<i class="range" style=${{ left: share(range[0]), right: `calc(100% - ${share(range[1])})` }}></i>`}
        ${notes.map((note) => html`<i class="mark" style=${{ left: share(note.first_frame) }}></i>`)}
      </span>
      <input type="range" min="0" max=${all - 1} value=${deck.frame} aria-label="Frame" aria-valuetext="frame ${shown(deck.frame)} of ${all}" onInput=${(event) => {
        deck.stop();
        deck.seek(Number(event.target.value));
      }} />
    </div>
    ${drawn.map((curve) => html`<${Curve} key=${curve.measure} ...${{ curve, all: curves.frames, frame: deck.sides[side] ? deck.frameOf(deck.sides[side]) : 0, tall: first.includes(curve), go: (frame) => deck.show(side, frame) }} />`)}
    ${list.length > first.length && html`<button type="button" class="link more" aria-expanded=${String(more)} onClick=${() => show(!more)}>${more ? "Fewer curves" : `${list.length - first.length} more curves`}</button>`}
  </section>`;
}

// What the gate judges may have another unit than the curve: it is said in words.
const judged = (finding) => `the clip: ${figure(finding.value)}, ${limit(finding)}`;

function Curve({ curve, all, frame, tall, go }) {
  const { values, threshold, at, outcome } = curve;
  const high = Math.max(...values, threshold ?? 0) * 1.08 || 1;
  const low = Math.min(0, ...values, threshold ?? 0);
  const x = (n) => (values.length > 1 ? (n / (values.length - 1)) * 100 : 50);
  const y = (value) => 100 - ((value - low) / (high - low)) * 100;
  const pointed = (event) => {
    if (!event.buttons) return;
    const box = event.currentTarget.getBoundingClientRect();
    go(Math.max(0, Math.min(all - 1, Math.round(((event.clientX - box.left) / box.width) * (all - 1)))));
  };
  const tone = outcome === "fail" ? "bad" : outcome === "warn" ? "warn" : "ok";
  const now = figure(values[Math.min(values.length - 1, frame)]);
  return html`<div class="curve ${tall ? "tall" : ""} ${tone}">
    <p><span><b>${plain(curve.measure)}</b> <span class="state ${tone}">${outcome}</span> ${at.map(([from, until]) => html`<button type="button" class="link" onClick=${() => go(from)}>at ${frameText(from, until)}</button> `)}<span class="quiet says">${curve.findings?.length ? judged(curve.findings[0]) : saying(curve.says)}</span></span>
      <span class="num">${now}${curve.unit && curve.unit !== "share" ? ` ${curve.unit}` : ""}${threshold !== null && html` <span class="quiet">limit ${figure(threshold)}</span>`}</span></p>
    <div class="plot" onPointerDown=${pointed} onPointerMove=${pointed}>
      <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="${plain(curve.measure)} over the frames, ${outcome}${at.length ? `, at ${at.map(([a, b]) => frameText(a, b)).join(", ")}` : ""}">
        ${at.map(([from, until]) => html`<rect class="at" x=${x(Math.max(0, from - 0.5))} width=${Math.max(0.6, x(until + 0.5) - x(Math.max(0, from - 0.5)))} y="0" height="100" />`)}
        ${threshold !== null && html`<line class="limit" x1="0" x2="100" y1=${y(threshold)} y2=${y(threshold)} />`}
        <polyline points=${values.map((value, n) => `${x(n).toFixed(2)},${y(value).toFixed(2)}`).join(" ")} />
      </svg>
      <i class="needle" style=${{ left: `${x(frame)}%` }} aria-hidden="true"></i>
    </div>
  </div>`;
}
