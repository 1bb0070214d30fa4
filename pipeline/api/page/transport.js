// Below the pictures: play, the frame that is shown, and the ways to compare and to say something.

import { html } from "./vendor/preact.js";
import { Button } from "./ui.js";
import { shown, takeName } from "./words.js";

export function Transport({ deck, view, sides, pen, range, mark, writeNote }) {
  const moves = deck.frames > 1;
  const { both, many, side } = sides;
  return html`<div class="transport">
    ${moves && html`<${Button} room="shot" action="play" press=${() => deck.toggle()}>${deck.plays ? "Pause" : "Play"}</${Button}>
      <span class="count num">frame <b>${shown(deck.frame)}</b> of ${deck.frames}</span>
      <span class="quiet speed">${deck.plays && deck.speed !== 1 ? `${deck.speed}×` : ""}</span>`}
    <span class="gap"></span>
    ${many && html`<${Button} room="shot" action="side" press=${sides.other}>Side ${side}</${Button}>`}
    ${both && html`<${Button} room="shot" action="wipe" on=${view.mode === "wipe"} press=${() => view.toggle("wipe")}>Wipe</${Button}>
      <${Button} room="shot" action="difference" on=${view.mode === "difference"} press=${() => view.toggle("difference")}>Difference</${Button}>`}
    ${moves && html`<${Button} room="shot" action="onion" on=${view.onion} press=${view.peel}>Onion</${Button}>`}
    <${Button} room="shot" action="draw" on=${pen.held !== null} press=${pen.toggle}>Draw</${Button}>
    <${Button} room="shot" action="note" press=${writeNote}>Note…</${Button}>
    ${view.mode === "wipe" && both && html`<label class="slide">A<input type="range" min="0" max="100" value=${Math.round(view.wipe * 100)} aria-label="How much of the width shows A, in percent" onInput=${(event) => view.moveWipe(event.target.value / 100)} />B</label>`}
    ${pen.held && html`<${PenHint} ...${{ pen, side: sides.shown, writeNote }} />`}
    ${range && html`<p class="hint">Frames ${shown(range[0])} to ${shown(range[1])} are marked. <button type="button" class="link" onClick=${writeNote}>Say what is there</button> or <button type="button" class="link" onClick=${() => mark(null)}>unmark them</button>.</p>`}
    ${view.onion && moves && html`<p class="hint quiet">${deck.plays ? "The onion skin shows while paused." : "The frames before and after lie over this one."}</p>`}
    ${view.mode === "difference" && both && html`<p class="hint quiet">A minus B, four times as bright: black where they are the same.</p>`}
  </div>`;
}

function PenHint({ pen, side, writeNote }) {
  const say = html`<button type="button" class="link" onClick=${writeNote}>say what it shows</button>`;
  if (!pen.here) return html`<p class="hint" role="status">Your drawing is on frame ${shown(pen.drawn.frame)} of ${takeName(pen.drawn.take)}; ${say}.</p>`;
  return html`<p class="hint" role="status">Draw on side ${side}, then ${say}${pen.drawn && html` or <button type="button" class="link" onClick=${pen.undo}>take the last line away</button>`}.</p>`;
}
