// Start a render of what is stale, or stop the one that runs.

import { html, useState } from "./vendor/preact.js";
import { post } from "./http.js";
import { Dialog, ProblemBox, announce, useWork } from "./ui.js";
import { count, estimate } from "./words.js";

export function RenderDialog({ board, plan, cancels, close }) {
  return cancels ? html`<${Cancel} job=${cancels} close=${close} />` : html`<${Start} ...${{ board, plan, close }} />`;
}

function Start({ board, plan, close }) {
  const [allow, set] = useState(false);
  const start = useWork(async (experimental) => {
    await post("/jobs", { episode: board.episode, allow_experimental: experimental });
    announce("The render is started.");
    close();
  });
  const stale = (plan?.shots ?? []).filter((shot) => shot.state === "stale");
  const needs = start.problem?.more?.needs === "allow_experimental";
  return html`<${Dialog} title="Render ${count(stale.length, "stale shot")}" close=${close}>
    ${plan && html`<p>How long: ${estimate(plan)}.</p>`}
    <ul class="why-list tall" tabindex="0" aria-label="What will be rendered, and why">${stale.map((shot) => html`<li><span class="id">${shot.shot}</span> <span class="quiet">${shot.why.map((why) => why.text).join("; ")}</span></li>`)}</ul>
    <${ProblemBox} problem=${start.problem} />
    ${needs && html`<label class="check"><input type="checkbox" checked=${allow} onChange=${(event) => set(event.target.checked)} /> Allow workflows that are not proven, this once</label>`}
    <div class="actions"><button type="button" class="btn main" autofocus disabled=${start.busy || (needs && !allow)} onClick=${() => start.run(allow)}>Render</button></div>
  </${Dialog}>`;
}

function Cancel({ job, close }) {
  const stop = useWork(async () => {
    await post(`/jobs/${job.job}/cancel`, {});
    announce("The render stops. What it has finished stays.");
    close();
  });
  return html`<${Dialog} title="Stop this render?" close=${close}>
    <p>Takes that are finished stay in the catalog. Takes that are being made are lost; the next render makes them again.</p>
    <${ProblemBox} problem=${stop.problem} />
    <div class="actions"><button type="button" class="btn main" disabled=${stop.busy} onClick=${() => stop.run()}>Stop the render</button></div>
  </${Dialog}>`;
}
