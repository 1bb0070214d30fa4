// Which workflows work, and on what evidence.

import { html, useState } from "./vendor/preact.js";
import { useData } from "./data.js";
import { useKeys } from "./keys.js";
import { Button, Dialog, ProblemBox, State } from "./ui.js";
import { count, figure, plain, seconds, when } from "./words.js";

const TONES = { proven: "ok", experimental: "warn", archived: "idle" };

export function Workflows() {
  const { data, problem } = useData("/workflows");
  const [opened, open] = useState(null);
  useKeys("board", { leave: () => (location.hash = "#/") });
  const alive = data?.filter((row) => row.status !== "archived") ?? [];
  const archived = data?.filter((row) => row.status === "archived") ?? [];
  alive.sort((a, b) => (b.status === "proven") - (a.status === "proven"));
  return html`<main class="page">
    <header class="head"><div class="title"><h1>Workflows</h1>${data && html`<span class="sub">${alive.filter((row) => row.status === "proven").length} proven, ${count(alive.length, "workflow")}</span>`}</div></header>
    <div class="body">
      <${ProblemBox} problem=${problem} />
      ${alive.length > 0 && html`<${Table} rows=${alive} open=${open} />`}
      ${archived.length > 0 && html`<details class="block"><summary>${archived.length} archived: what was tried, and why it was given up</summary><${Table} rows=${archived} open=${open} /></details>`}
    </div>
    ${opened && html`<${Evidence} row=${opened} close=${() => open(null)} />`}
  </main>`;
}

const Status = ({ status }) => html`<span class="state ${TONES[status] ?? "warn"}">${status}</span>`;

function Table({ rows, open }) {
  const here = (row) => /^ready/.test(row.files);
  return html`<table class="rows"><thead><tr><th>workflow</th><th>status</th><th>makes</th><th>files</th><th>why</th><th><span class="hidden">evidence</span></th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.workflow}><td><b class="id">${row.workflow}</b>${row.alias ? html`<br /><span class="quiet">${row.alias}</span>` : ""}</td>
      <td><${Status} status=${row.status} /></td><td>${row.makes}</td><td><span class="state ${here(row) ? "ok" : "bad"}">${here(row) ? row.files : "not here"}</span></td><td class="quiet">${row.why}</td>
      <td><${Button} press=${() => open(row)}>Evidence…<span class="hidden"> for ${row.workflow}</span></${Button}></td></tr>`)}</tbody></table>`;
}

function Evidence({ row, close }) {
  const [name, version] = row.workflow.split("@");
  const path = `/workflows/${encodeURIComponent(name)}/${version}`;
  const details = useData(path);
  const explained = useData(`${path}/explain`);
  const cells = explained.data?.cells ?? [];
  return html`<${Dialog} title=${row.workflow} wide close=${close}>
    <${ProblemBox} problem=${details.problem ?? explained.problem} />
    ${explained.data && html`<p><${Status} status=${explained.data.status} /> ${explained.data.why}</p>`}
    <p class="quiet">${row.files}</p>
    ${cells.length > 0 && html`<section class="block"><h2>Evidence: ${cells[0].benchmark}, ${count(cells.length, "first take")}</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="evidence"><table class="rows"><thead><tr><th>case</th><th>seed</th><th>outcome</th><th>on the device</th></tr></thead>
        <tbody>${cells.map((cell) => html`<tr><td>${cell.case}</td><td class="num">${cell.seed}</td><td><${State} state=${cell.outcome} /> <span class="quiet">${(cell.labels ?? []).map(plain).join(", ")}</span></td><td class="num">${seconds(cell.device_seconds)}</td></tr>`)}</tbody></table></div></section>`}
    ${explained.data?.ledger.length > 0 && html`<section class="block"><h2>Decisions</h2><ul class="happened">${explained.data.ledger.map((line) => html`<li><time datetime=${line.at}>${when(line.at)}</time><span><b>${line.by}</b> ${line.action}${line.evidence ? ` on ${line.evidence}` : ""}${line.why ? `: ${line.why}` : ""}</span></li>`)}</ul></section>`}
    ${details.data && html`<details><summary>Settings</summary><dl>${Object.entries(details.data.settings).filter(([, value]) => value !== null && value !== "").map(([key, value]) => html`<dt>${plain(key)}</dt><dd>${told(value)}</dd>`)}</dl></details>`}
  </${Dialog}>`;
}

const told = (value) => (typeof value === "number" ? figure(value) : typeof value === "object" ? JSON.stringify(value) : String(value));
