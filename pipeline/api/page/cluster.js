// What each device does now, what waits, and the jobs with their logs.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { Now } from "./board_aside.js";
import { useData, useEvents } from "./data.js";
import { get, post, text } from "./http.js";
import { useKeys } from "./keys.js";
import { Button, Dialog, ProblemBox, announce, useWork } from "./ui.js";
import { count, doneAbout, when } from "./words.js";

const TONES = { queued: "idle", running: "run", paused: "warn", succeeded: "ok", failed: "bad", stopped: "idle" };
const FOLLOW = 2000; // ms between two looks at a job's log

export function Cluster() {
  const runs = useData("/cluster");
  const jobs = useData("/jobs");
  const [log, open] = useState(null);
  useEvents("", (name, told) => {
    if (name === "live" && told) return runs.change((was) => [told, ...was.filter((run) => run.run !== told.run)].sort((a, b) => a.run.localeCompare(b.run)));
    runs.reload();
    jobs.reload();
  });
  const act = useWork(async (job, action) => {
    await post(`/jobs/${encodeURIComponent(job.job)}/${action}`, {});
    announce({ cancel: "The job stops. What it has finished stays.", pause: "The job pauses.", resume: "The job goes on." }[action]);
    jobs.reload();
  });
  useKeys("board", { leave: () => (location.hash = "#/") });
  const devices = runs.data?.flatMap((run) => run.devices) ?? [];
  return html`<main class="page">
    <header class="head"><div class="title"><h1>Cluster</h1>${runs.data && html`<span class="sub">${runs.data.length ? `${count(devices.filter((device) => device.up).length, "device")} at work for ${count(runs.data.length, "render")}` : "nothing renders"}</span>`}</div></header>
    <div class="body">
      <${ProblemBox} problem=${runs.problem ?? act.problem} />
      ${runs.data?.length > 0 && html`<section class="block"><h2>Renders</h2><div class="lives">${runs.data.map((run) => html`<div class="live" key=${run.run}><p><a href="#/${run.episode}"><b>${run.episode}</b></a> <span class="quiet">${run.paused ? "paused" : run.eta_seconds ? `done about ${doneAbout(run)}` : ""}</span></p><${Now} live=${run} title="" /></div>`)}</div></section>`}
      <section class="block"><h2>Jobs</h2><${ProblemBox} problem=${jobs.problem} />
        ${jobs.data?.length === 0 && html`<p class="quiet">None yet. A render that is started from the board is a job.</p>`}
        ${jobs.data?.length > 0 && html`<table class="rows"><thead><tr><th>job</th><th>state</th><th>done</th><th>started</th><th>says</th><th><span class="hidden">actions</span></th></tr></thead>
          <tbody>${jobs.data.map((job) => html`<${Job} key=${job.job} ...${{ job, open, act }} />`)}</tbody></table>`}
      </section>
      <${Doctor} />
    </div>
    ${log && html`<${LogDialog} job=${log} close=${() => open(null)} />`}
  </main>`;
}

function Job({ job, open, act }) {
  const pause = job.state === "paused" ? "resume" : "pause";
  return html`<tr><td><span class="id">${job.job}</span> <a href="#/${job.episode}">${job.episode}</a></td><td><span class="state ${TONES[job.state] ?? "idle"}">${job.state}</span></td>
    <td class="num">${job.total ? `${job.done} of ${job.total}` : ""}</td><td>${job.started ? when(job.started) : ""}</td><td class="quiet">${job.message}</td>
    <td><div class="links"><${Button} press=${() => open(job)}>Log…</${Button}>${["running", "paused"].includes(job.state) && html`<${Button} disabled=${act.busy} press=${() => act.run(job, pause)}>${pause === "pause" ? "Pause" : "Resume"}</${Button}>`}
      ${job.cancellable && ["queued", "running", "paused"].includes(job.state) && html`<${Button} disabled=${act.busy} press=${() => act.run(job, "cancel")}>Stop</${Button}>`}</div></td></tr>`;
}

// The log grows at its end; the view follows it until a person scrolls up.
function LogDialog({ job, close }) {
  const [words, set] = useState("");
  const [problem, fail] = useState(null);
  const box = useRef();
  useEffect(() => {
    let timer;
    let offset = 0;
    let left = false;
    const look = async () => {
      try {
        const more = await text(`/jobs/${encodeURIComponent(job.job)}/log?offset=${offset}`);
        if (left) return;
        const follows = box.current.scrollHeight - box.current.scrollTop - box.current.clientHeight < 30;
        if (more.text) set((was) => was + more.text);
        if (follows) requestAnimationFrame(() => box.current && (box.current.scrollTop = box.current.scrollHeight));
        offset = more.offset;
        fail(null);
      } catch (error) {
        fail(error);
      }
      if (!left) timer = setTimeout(look, FOLLOW);
    };
    look();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [job.job]);
  return html`<${Dialog} title="Log of ${job.job}" wide close=${close}><${ProblemBox} problem=${problem} />
    <pre class="log" ref=${box} tabindex="0" role="log" aria-label="log">${words || "Nothing is written yet."}</pre></${Dialog}>`;
}

// The doctor looks at the machine for some seconds: only when somebody asks.
function Doctor() {
  const [found, find] = useState(null);
  const ask = useWork(async () => find(await get("/doctor")));
  return html`<section class="block"><h2>What can render here</h2><${ProblemBox} problem=${ask.problem} />
    ${found ? html`<dl class="doctor">${found.map((row) => html`<${Finding} row=${row} />`)}</dl>` : html`<${Button} disabled=${ask.busy} press=${() => ask.run()}>${ask.busy ? "Looking…" : "Look"}</${Button}>`}
  </section>`;
}

function Finding({ row }) {
  return html`<dt><span class="state ${{ ok: "ok", warn: "warn" }[row.state] ?? "bad"}">${row.check}</span></dt><dd>${row.told}${row.do && html`<br /><span class="quiet">${row.do}</span>`}</dd>`;
}
