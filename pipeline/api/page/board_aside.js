// Beside the board: what happens now, what happened, and what is delivered.

import { html, useEffect, useState } from "./vendor/preact.js";
import { announce } from "./ui.js";
import { count, estimate, many, seconds, takeName, when } from "./words.js";

export function Aside({ board, plan, delivery, open, submit }) {
  return html`<aside class="aside" aria-label="Now, and what happened">
    ${board.live ? html`<${Now} live=${board.live} />` : html`<${Next} plan=${plan} run=${board.run} />`}
    <${Delivery} ...${{ delivery, board, open }} />
    <section><h2>What happened</h2>
      ${board.happened.length ? html`<ol class="happened" aria-live="off">${board.happened.map((row) => html`<${Happened} key=${`${row.at} ${row.take ?? row.text}`} row=${row} episode=${board.episode} />`)}</ol>` : html`<p class="quiet">Nothing yet.</p>`}
    </section>
    <section><h2>Story</h2>
      <p class="quiet">${board.story ? html`${board.story.name}, ${when(board.story.at)}${board.story.by ? ` by ${board.story.by}` : ""}` : "Not kept in this catalog."}</p>
      <p class="links">${board.story && html`<a href="/episodes/${board.episode}/story" download>Get the file</a>`}<button type="button" class="link" onClick=${() => submit([])}>Submit a changed one…</button></p>
    </section>
  </aside>`;
}

export function Now({ live, title = "Now" }) {
  return html`<section class="now">${title && html`<h2>${title}</h2>`}
    ${live.devices.map((device) => html`<${Device} key=${`${device.node} ${device.device}`} device=${device} />`)}
    ${Object.entries(live.stages).filter(([, told]) => told.total > 0).map(([stage, told]) => html`<${Stage} key=${stage} stage=${stage} told=${told} />`)}
    ${live.paused && html`<p class="quiet">Paused: takes that are being made are finished, no new one begins.</p>`}
  </section>`;
}

function Device({ device }) {
  const does = device.doing.map((work) => (work.take ? `${work.take.split("/")[1]} ${takeName(work.take)}` : work.what));
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const since = device.since ? Math.max(0, (Date.now() - Date.parse(device.since)) / 1000) : null;
  return html`<div class="device" title=${device.node}><span class="id">${device.device.replace(` on ${device.node}`, "")}</span>
    ${device.up ? html`<span>${does.join(", ") || html`<span class="quiet">idle</span>`}</span>` : html`<span class="state bad">down</span>`}
    <span class="quiet num">${device.up && does.length && since !== null ? seconds(Math.round(since)) : ""}</span></div>`;
}

function Stage({ stage, told }) {
  const says = [`${told.done} of ${told.total}`, told.running && `${told.running} running`, told.waiting && `${told.waiting} waiting`, told.rejected && `${told.rejected} rejected`, told.failed && `${told.failed} failed`];
  return html`<div class="device"><span>${many(stage)}</span><span class="stage-told"><span class="meter" aria-hidden="true">${told.done > 0 && html`<i class="run" style=${{ flexGrow: told.done }}></i>`}<i class="rest" style=${{ flexGrow: Math.max(0, told.total - told.done) }}></i></span>
    <span class="quiet">${says.filter(Boolean).join(" · ")}</span></span></div>`;
}

function Next({ plan, run }) {
  const stale = plan?.shots.filter((shot) => shot.state === "stale") ?? [];
  return html`<section class="now"><h2>Next</h2>
    ${!plan ? html`<p class="quiet">…</p>` : stale.length === 0 ? html`<p class="quiet">Every shot stands.</p>`
      : html`<p>${count(stale.length, "shot")} to render, ${estimate(plan)}</p>
        <ul class="why-list">${stale.slice(0, 6).map((shot) => html`<li><a class="id" href="#/${plan.episode}/${shot.shot}">${shot.shot}</a> <span class="quiet">${shot.why.map((why) => why.text).join("; ")}</span></li>`)}</ul>
        ${stale.length > 6 && html`<p class="quiet">and ${stale.length - 6} more</p>`}`}
    ${run && html`<p class="quiet">Last render ${run.event}, ${when(run.at)}${run.accepted === null ? "" : `: ${run.accepted} accepted${run.exhausted ? `, ${run.exhausted} exhausted` : ""}`}</p>`}
  </section>`;
}

function Happened({ row, episode }) {
  // The shot's name in the sentence is the way to it.
  const [before, ...after] = row.shot ? row.text.split(row.shot) : [row.text];
  return html`<li class=${row.tone}><time datetime=${row.at}>${when(row.at)}</time><span>${before}${after.length > 0 && html`<a href="#/${episode}/${row.shot}">${row.shot}</a>${after.join(row.shot)}`}</span></li>`;
}

function Delivery({ delivery, board, open }) {
  if (!delivery) return null;
  const { movie, contact_sheet: sheet, report, current, why } = delivery;
  return html`<section><h2>Delivery</h2>
    ${movie ? html`<p class="links"><a class="btn" href="${movie}?download=1" download="${board.episode}.mp4" onClick=${() => announce("The movie is being downloaded.")}>Download the movie</a></p>` : ""}
    <p class="links">${sheet?.length > 0 && html`<button type="button" class="link" onClick=${() => open("sheet")}>Contact sheet</button>`}${report && html`<a href=${report}>Report</a>`}</p>
    ${why && html`<p class="quiet">${movie && !current ? "Not of today: " : ""}${why}</p>`}
  </section>`;
}
