// Takes beside each other, over each other, or against each other.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { Deck } from "./deck.js";
import { Drawing, Pen } from "./drawing.js";
import { State } from "./ui.js";
import { shown, takeName } from "./words.js";

// One deck for as long as the view is there, told which takes lie on its sides.
export function useDeck() {
  const [, redraw] = useState(0);
  const deck = useRef();
  deck.current ??= new Deck(() => redraw((n) => n + 1));
  useEffect(() => () => deck.current.leave(), []);
  return deck.current;
}

// The two sides beside each other, or, where both have a take, one over the other.
export function Stage({ deck, sides, view, pen, drawings }) {
  const { laid, both, side, shown } = sides;
  const stage = useRef();
  const shape = laid.A ?? laid.B;
  const empty = side === "B" && !laid.B;
  const kind = both ? view.mode : empty ? "side" : "single";
  const drag = (event) => {
    if (kind !== "wipe" || !event.buttons) return;
    const box = stage.current.getBoundingClientRect();
    view.moveWipe((event.clientX - box.left) / box.width);
  };
  return html`<div class="stage ${kind}" ref=${stage} style=${{ "--ratio": shape.width / shape.height || 1.5, "--wipe": `${view.wipe * 100}%` }} onPointerDown=${drag} onPointerMove=${drag}>
    ${["A", "B"].map((name) => laid[name] && html`<${Side} key=${name} ...${{ deck, name, take: laid[name], chosen: both && side === name, choose: sides.choose, onion: view.onion && !deck.plays && name === shown }}>
      ${shown === name && pen.here && html`<${Pen} lines=${pen.held.lines} draw=${pen.draw} />`}
      ${!deck.plays && drawings[name].map((lines) => html`<${Drawing} lines=${lines} />`)}
    </${Side}>`)}
    ${empty && html`<p class="empty">Press a take below to lay it here.</p>`}
    ${kind === "wipe" && html`<i class="edge" aria-hidden="true"></i>`}
    ${kind === "difference" && html`<i class="gain" aria-hidden="true"></i>`}
  </div>`;
}

function Side({ deck, name, take, chosen, choose, onion, children }) {
  const video = useRef();
  useEffect(() => {
    deck.put(name, take, video.current);
    return () => deck.drop(name);
  }, [deck, name, take.take]);
  const laid = deck.sides[name];
  const frame = laid ? deck.frameOf(laid) : 0;
  const cover = deck.covers[name];
  const picture = (n) => `/takes/${take.take}/frames/${n}.jpg`;
  return html`<figure class="side ${name} ${chosen ? "chosen" : ""}" data-frame=${frame}>
    <div class="frame">
      ${!take.media ? html`<p class="missing">no picture: ${take.error ?? "its file is not there"}</p>`
        : take.frames > 1 ? html`<video ref=${video} src=${take.media} muted playsinline preload="auto" aria-label="take ${name}, ${takeName(take.take)}"></video>`
        : html`<img src=${take.media} alt="take ${name}, ${takeName(take.take)}" />`}
      ${cover !== null && cover !== undefined && html`<img class="cover" src=${picture(cover)} alt="" />`}
      ${onion && take.frames > 1 && html`${frame > 0 && html`<img class="onion before" src=${picture(frame - 1)} alt="" />`}${frame + 1 < take.frames && html`<img class="onion after" src=${picture(frame + 1)} alt="" />`}`}
      ${children}
    </div>
    <figcaption><button type="button" aria-pressed=${String(Boolean(chosen))} onClick=${() => choose(name)}><b>${name}</b> ${takeName(take.take)}</button><${State} state=${wordOf(take)} />${take.frames > 1 && frame !== deck.frame ? html`<span class="quiet">its frame ${shown(frame)}</span>` : ""}</figcaption>
  </figure>`;
}

// What a take is for people: their own word if there is one, else what the gate says.
export const wordOf = (take) => (take.word ? take.word.verdict : take.outcome);
