// All takes of the shot, oldest first; a press lays one on the chosen side.

import { html } from "./vendor/preact.js";
import { wordOf } from "./player.js";
import { State } from "./ui.js";
import { plain, takeName } from "./words.js";

export function Takes({ takes, sides }) {
  const { names, side, into } = sides;
  if (!takes.length) return null;
  return html`<section class="takes" aria-label="Takes"><ol>${takes.map((take, k) => {
    const on = ["A", "B"].filter((name) => names[name] === take.take).join(" ");
    return html`<li key=${take.take}><button type="button" class="take ${on ? "laid" : ""} ${names[side] === take.take ? "chosen" : ""}" disabled=${!take.media} onClick=${() => into(k)}>
      <span class="pic">${take.media && html`<img src="/takes/${take.take}/frames/0.jpg?width=320" alt="" loading="lazy" />`}${on && html`<b class="on"><span class="hidden">on side </span>${on}</b>`}${take.stands && html`<span class="stands">stands</span>`}</span>
      <span class="row"><span>${k < 9 && html`<kbd aria-hidden="true">${k + 1}</kbd>`} ${takeName(take.take)}</span></span>
      <${State} state=${wordOf(take)} />
      <span class="why">${whyOf(take)}</span>
    </button></li>`;
  })}</ol></section>`;
}

function whyOf(take) {
  const gate = take.labels.map(plain).join(", ");
  if (take.error) return take.error;
  if (take.word) return gate && take.word.verdict !== "retake" ? `the gate says: ${gate}` : take.word.note ? `“${take.word.note}”` : "";
  return gate || (take.warnings.length ? `warns: ${take.warnings.map(plain).join(", ")}` : "");
}
