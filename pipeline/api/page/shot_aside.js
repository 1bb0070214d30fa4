// Beside the takes: what gates and people say of the chosen one, and how it was made.

import { html, useState } from "./vendor/preact.js";
import { wordOf } from "./player.js";
import { State } from "./ui.js";
import { bytes, figure, frames, plain, saying, seconds, takeName, threshold, when } from "./words.js";

export function ShotAside({ page, take, side, show, lay }) {
  return html`<aside class="aside" aria-label="About the take">
    ${take && html`<${Verdict} take=${take} side=${side} /><${Findings} take=${take} show=${show} /><${Made} ...${{ page, take, lay }} />`}
    <${Said} ...${{ page, show, lay }} />
  </aside>`;
}

// A person's word goes before the gate's, in both directions: both are said.
function Verdict({ take, side }) {
  const gate = take.gate === "rejected" ? `rejected for ${take.labels.map(plain).join(", ")}` : take.gate;
  const { word } = take;
  return html`<section class="verdict"><h2>${side ? `${side} · ` : ""}${takeName(take.take)}${take.stands ? " · stands" : ""}</h2>
    <p><${State} state=${wordOf(take)} by=${word ? word.by : ""} />${word?.note ? html` <q>${word.note}</q>` : ""}</p>
    ${word && gate && html`<p class="quiet">The gate alone says: ${gate}.</p>`}
    ${take.error && html`<p class="problem">${take.error}</p>`}
  </section>`;
}

function Findings({ take, show }) {
  const faults = take.findings.filter((finding) => finding.outcome !== "pass");
  const passed = take.findings.filter((finding) => finding.outcome === "pass");
  const measured = Object.entries(take.measures ?? {}).filter(([name]) => !take.findings.some((finding) => finding.measure === name) && !/^(hash|expected)_|_(at|until)$/.test(name));
  if (!take.findings.length && !measured.length) return null;
  const row = (finding) => html`<${Finding} key=${finding.label + finding.measure} ...${{ finding, show }} />`;
  return html`<section><h2>What the gate says</h2>
    <dl>${faults.map(row)}</dl>
    ${!faults.length && html`<p class="state ok">${take.gate === "accepted" ? "no fault found" : (take.gate ?? "not judged")}</p>`}
    ${passed.length + measured.length > 0 && html`<details><summary>${passed.length + measured.length} more measures</summary><dl>${passed.map(row)}${measured.map(([name, value]) => html`<dt>${plain(name)}</dt><dd class="num">${figure(value)}</dd>`)}</dl></details>`}
  </section>`;
}

function Finding({ finding, show }) {
  const tone = { fail: "bad", warn: "warn", pass: "" }[finding.outcome];
  const name = tone ? html`<span class="state ${tone}">${plain(finding.label)}</span>` : plain(finding.measure);
  return html`<dt title=${saying(finding.says)}>${name}</dt>
    <dd class="num">${tone && plain(finding.label) !== plain(finding.measure) ? `${plain(finding.measure)} ` : ""}${figure(finding.value)}${finding.threshold === null ? "" : html`<span class="quiet">, ${threshold(finding)}</span>`}
      ${finding.frames.length > 0 && html` <button type="button" class="link" onClick=${() => show(finding.frames[0])}>at ${frames(finding.frames[0], finding.frames.at(-1))}</button>`}
      ${finding.text && html`<br /><span class="quiet">${finding.text}</span>`}${finding.outcome === "warn" && html` <span class="quiet">warns only</span>`}</dd>`;
}

function Made({ page, take, lay }) {
  const above = take.upstream && page.takes.find((other) => other.take === take.upstream);
  const references = Object.entries(take.reference_files ?? {});
  const parameters = Object.entries(take.parameters ?? {}).filter(([, value]) => value !== null);
  const [name, version] = take.workflow.split("@");
  return html`<section><h2>How it was made</h2><dl>
    <dt>workflow</dt><dd><a href="#/workflows">${name}@${version}</a> <span class="state ${{ proven: "ok", blocked: "bad" }[take.status] ?? "warn"}">${take.status}</span></dd>
    <dt>seed</dt><dd class="num">${take.seed ?? "given, no seed"}</dd>
    ${take.upstream && html`<dt>${take.upstream.split("/")[2]}</dt><dd>${above ? html`<button type="button" class="link" onClick=${() => lay(take.upstream)}>${takeName(take.upstream)}</button>` : takeName(take.upstream)}</dd>`}
    ${references.map(([file, digest]) => html`<dt>from</dt><dd><span title=${digest}>${file}</span></dd>`)}
    <dt>prompt</dt><dd>${take.prompt || "none"}${take.prompt && page.prompt && page.prompt !== take.prompt ? html`<br /><span class="quiet">now: ${page.prompt}</span>` : ""}</dd>
    ${take.prompt_cut && html`<dt>cut off</dt><dd class="state warn">${take.prompt_cut}</dd>`}
    ${take.negative_prompt && html`<dt>not</dt><dd>${take.negative_prompt}</dd>`}
    <dt>picture</dt><dd class="num">${take.width}×${take.height}${take.frames > 1 ? `, ${take.frames} frames at ${figure(take.fps)}` : ""}</dd>
    <dt>device</dt><dd>${[take.device, take.node && `on ${take.node}`].filter(Boolean).join(" ")}</dd>
    <dt>time</dt><dd class="num">${seconds(take.device_seconds)} on it${take.queue_seconds > 0.05 ? `, ${seconds(take.queue_seconds)} waiting` : ""}${take.gate_seconds ? `, ${seconds(take.gate_seconds)} at the gate` : ""}${take.peak_memory_bytes ? `, ${bytes(take.peak_memory_bytes)}` : ""}</dd>
    <dt>made</dt><dd>${when(take.at)}, run <span class="id">${take.run}</span></dd>
    ${take.profile && html`<dt>gate</dt><dd>${take.profile.split("#")[0]}${take.declared?.length ? `, declared: ${take.declared.join(", ")}` : ""}</dd>`}
  </dl>${parameters.length > 0 && html`<details><summary>${parameters.length} settings</summary><dl>${parameters.map(([key, value]) => html`<dt>${plain(key)}</dt><dd class="num">${String(value)}</dd>`)}</dl></details>`}</section>`;
}

// What a retake changes, from the next take on.
function changes({ seed, prompt, parameters }) {
  const numbers = Object.entries(parameters ?? {}).map(([name, value]) => `${plain(name)} ${value}`);
  return [seed === undefined || seed === null ? "" : `seed ${seed}`, prompt ? `the prompt “${prompt}”` : "", ...numbers].filter(Boolean).join(", ");
}

const VERBS = { approved: "approved", picked: "chose", retake: "asked for a retake of", note: "on" };

function Said({ page, show, lay }) {
  const [all, unfold] = useState(false);
  const { reviews } = page;
  const go = (review) => {
    lay(review.take);
    setTimeout(() => show(review.first_frame)); // after the take is laid
  };
  return html`<section><h2>Said about it</h2>
    ${!reviews.length && html`<p class="quiet">Nothing yet.</p>`}
    <ol class="happened">${(all ? reviews : reviews.slice(0, 8)).map((review) => html`<li key=${review.at}><time datetime=${review.at}>${when(review.at)}</time><span>
      <b>${review.by || "somebody"}</b> ${VERBS[review.verdict]} ${takeName(review.take)}${review.first_frame !== null ? html`, <button type="button" class="link" onClick=${() => go(review)}>${review.last_frame > review.first_frame ? "frames" : "frame"} ${frames(review.first_frame, review.last_frame)}${review.drawing?.length ? ", drawn" : ""}</button>` : ""}${review.note ? html`: <q>${review.note}</q>` : ""}${review.overrides ? html` <span class="quiet">with ${changes(review.overrides)}</span>` : ""}</span></li>`)}</ol>
    ${reviews.length > 8 && html`<button type="button" class="link" onClick=${() => unfold(!all)}>${all ? "Fewer" : `${reviews.length - 8} earlier`}</button>`}
  </section>`;
}
