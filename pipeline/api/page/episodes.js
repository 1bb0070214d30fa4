// All episodes, and the way in for a new one.

import { html, useState } from "./vendor/preact.js";
import { useData, useEvents } from "./data.js";
import { useKeys } from "./keys.js";
import { SubmitDialog, useDrop } from "./submit.js";
import { Button, ProblemBox } from "./ui.js";
import { count, seconds, when } from "./words.js";

export function Episodes() {
  const { data, problem, reload } = useData("/episodes");
  const [given, submit] = useState(null);
  const over = useDrop(submit);
  useEvents("", (name) => name !== "live" && reload());
  useKeys("board", {});
  return html`<main class="page ${over ? "over" : ""}">
    <header class="head"><div class="title"><h1>Episodes</h1>${data?.length > 0 && html`<span class="sub">${count(data.length, "episode")}</span>`}</div>
      <div class="does"><${Button} main press=${() => submit([])}>Submit an episode…</${Button}></div></header>
    <div class="body">
      <${ProblemBox} problem=${problem} />
      ${data?.length === 0 && html`<${Nothing} submit=${submit} />`}
      ${data?.length > 0 && html`<ul class="episodes">${data.map((row) => html`<${Row} key=${row.episode} row=${row} />`)}</ul>`}
    </div>
    ${given && html`<${SubmitDialog} given=${given} close=${() => submit(null)} />`}
  </main>`;
}

function Row({ row }) {
  const open = row.shots - row.with_accepted_clip;
  return html`<li><a href="#/${row.episode}">
    <span class="id">${row.episode}</span>
    <b>${row.title || row.episode}</b>
    <span class="quiet">${count(row.shots, "shot")}${row.seconds ? ` · ${seconds(row.seconds)}` : ""} · ${count(row.takes, "take")}</span>
    <span class="state ${row.rendering ? "run" : open ? "idle" : "ok"}">${row.rendering ? "rendering" : open ? `${open} to render` : "all shots have a clip"}</span>
    <span class="state ${row.approved ? "lamp" : "idle"}">${row.approved} approved</span>
    <time class="quiet">${row.last ? when(row.last) : ""}</time>
  </a></li>`;
}

function Nothing({ submit }) {
  return html`<section class="nothing">
    <h2>No episode yet</h2>
    <p>Drop an episode's YAML file here, with the pictures that it names. Tower checks it and says what it will take, before anything renders.</p>
    <p><button type="button" class="btn" onClick=${() => submit([])}>Choose the files…</button></p>
  </section>`;
}
