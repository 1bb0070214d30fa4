// All keys of the page, and what changes them.

import { html, useLayoutEffect, useState } from "./vendor/preact.js";
import { TABLE, forgetKeys, glyph, keyOf, nameOf, setKey, takenBy } from "./keys.js";
import { Dialog } from "./ui.js";

const ROOMS = { anywhere: "Anywhere", board: "Board", cut: "The cut", shot: "Shot" };
const MODIFIERS = ["Shift", "Alt", "Control", "Meta", "AltGraph"];

export function KeysDialog({ close }) {
  const [waits, wait] = useState(null); // the row whose new key is awaited
  const [says, say] = useState("");
  useLayoutEffect(() => {
    if (!waits) return;
    const listen = (event) => {
      if (MODIFIERS.includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      say(event.key === "Escape" || event.key === "Tab" ? "" : give(waits, nameOf(event)));
      wait(null);
    };
    addEventListener("keydown", listen, true);
    return () => removeEventListener("keydown", listen, true);
  }, [waits]);
  const reset = () => {
    forgetKeys();
    say("All keys are as they were.");
  };
  return html`<${Dialog} title="Keys" wide close=${close}>
    <p class="quiet">Press a key's button, then the key that you want instead. Keys never act while you type.</p>
    <p role="status" class="said">${waits ? `Press the key for “${waits[3]}”; esc leaves it.` : says}</p>
    <div class="keys">${Object.entries(ROOMS).map(([room, title]) => html`<section><h3>${title}</h3><ul>
      ${TABLE.filter((row) => row[0] === room).map((row) => html`<li>
        <span>${row[3]}</span>
        <button type="button" class="key ${waits === row ? "waits" : ""}" aria-label="${row[3]}: ${glyph(keyOf(room, row[1]))}, change" onClick=${() => wait(row)}>
          <kbd>${waits === row ? "…" : glyph(keyOf(room, row[1]))}</kbd></button>
      </li>`)}</ul></section>`)}</div>
    <div class="actions"><button type="button" class="btn" onClick=${reset}>As they were</button></div>
  </${Dialog}>`;
}

function give([room, action, , does], key) {
  const other = takenBy(room, action, key);
  if (other) return `${glyph(key)} already is “${other[3]}”. Give that another key first.`;
  setKey(room, action, key);
  return `${glyph(key)} now is “${does}”.`;
}
