// Which workflows work, and on what evidence.

import { html, useState } from "./vendor/preact.js";
import { useData } from "./data.js";
import { useKeys } from "./keys.js";
import { Button, Dialog, ProblemBox } from "./ui.js";
import { count, figure, plain, when } from "./words.js";

const TONES = { proven: "ok", experimental: "warn", candidate: "warn", blocked: "bad", retired: "idle", refused: "bad" };

export function Workflows() {
  const { data, problem } = useData("/workflows");
  const [opened, open] = useState(null);
  useKeys("board", { leave: () => (location.hash = "#/") });
  const proven = data?.filter((row) => row.status === "proven").length;
  return html`<main class="page">
    <header class="head"><div class="title"><h1>Workflows</h1>${data && html`<span class="sub">${count(data.length, "workflow")}, ${proven} proven</span>`}</div></header>
    <div class="body">
      <${ProblemBox} problem=${problem} />
      ${data && html`<table class="rows"><thead><tr><th>workflow</th><th>status</th><th>makes</th><th>files</th><th>why</th><th><span class="hidden">evidence</span></th></tr></thead>
        <tbody>${data.map((row) => html`<tr key=${row.workflow}><td><b class="id">${row.workflow}</b>${row.alias ? html` <span class="quiet">${row.alias}</span>` : ""}</td>
          <td><span class="state ${TONES[row.status] ?? "idle"}">${row.status}</span></td><td>${row.makes}</td><td>${row.files}</td><td class="quiet">${row.why}</td>
          <td><${Button} press=${() => open(row)}>Evidence…</${Button}></td></tr>`)}</tbody></table>`}
    </div>
    ${opened && html`<${Evidence} row=${opened} close=${() => open(null)} />`}
  </main>`;
}

function Evidence({ row, close }) {
  const [name, version] = row.workflow.split("@");
  const path = `/workflows/${encodeURIComponent(name)}/${version}`;
  const details = useData(path);
  const explained = useData(`${path}/explain`);
  return html`<${Dialog} title=${row.workflow} wide close=${close}>
    <${ProblemBox} problem=${details.problem ?? explained.problem} />
    ${explained.data && html`<p><span class="state ${TONES[explained.data.status] ?? "idle"}">${explained.data.status}</span> ${explained.data.why}</p>
      <${Rows} title="Evidence" rows=${explained.data.cells} /><${Rows} title="Decisions" rows=${explained.data.ledger} />`}
    ${details.data && html`<details><summary>Settings</summary><${Tree} value=${details.data} /></details>`}
  </${Dialog}>`;
}

// Rows of any columns, as the service has them.
export function Rows({ title, rows }) {
  if (!rows?.length) return html`<p class="quiet">${title}: none.</p>`;
  const columns = [...new Set(rows.flatMap(Object.keys))].filter((name) => rows.some((row) => row[name] !== null && row[name] !== ""));
  return html`<section class="block"><h2>${title}</h2><table class="rows"><thead><tr>${columns.map((name) => html`<th>${plain(name)}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${columns.map((name) => html`<td>${cell(row[name])}</td>`)}</tr>`)}</tbody></table></section>`;
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return figure(value);
  if (typeof value === "object") return Object.entries(value).map(([key, inner]) => `${Array.isArray(value) ? "" : `${plain(key)} `}${typeof inner === "object" ? JSON.stringify(inner) : inner}`).join(", ");
  return /^\d{4}-\d\d-\d\dT/.test(value) ? when(value) : value;
}

function Tree({ value }) {
  return html`<dl>${Object.entries(value).filter(([, inner]) => inner !== null).map(([key, inner]) => html`<dt>${plain(key)}</dt><dd>${inner && typeof inner === "object" && !Array.isArray(inner) ? html`<${Tree} value=${inner} />` : cell(inner)}</dd>`)}</dl>`;
}
