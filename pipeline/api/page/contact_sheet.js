// The contact sheet's pages, one below the other.

import { html } from "./vendor/preact.js";
import { Dialog } from "./ui.js";

export function ContactSheet({ pages, close }) {
  return html`<${Dialog} title="Contact sheet" wide close=${close}>
    <div class="contact">${pages.map((page, k) => html`<a href=${page} target="_blank" rel="noopener"><img src=${page} alt="Contact sheet, page ${k + 1} of ${pages.length}" loading="lazy" /></a>`)}</div>
  </${Dialog}>`;
}
