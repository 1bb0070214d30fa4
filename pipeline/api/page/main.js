// The page: one bar, and below it the view that the address names.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { Board } from "./board.js";
import { Cluster } from "./cluster.js";
import { useConnection } from "./data.js";
import { Episodes } from "./episodes.js";
import { Problem, enter, whenLocked } from "./http.js";
import { useKeys } from "./keys.js";
import { KeysDialog } from "./keys_dialog.js";
import { Shot } from "./shot.js";
import { applyTheme, isLight, switchTheme } from "./theme.js";
import { Announcer, Dialog, ProblemBox, useWork } from "./ui.js";
import { Workflows } from "./workflows.js";

const LOCKED = "This desk shows nothing without its token. Load the page again to enter it.";
const EPISODE = /^E\d{2,4}$/;

function route() {
  const [first = "", second = ""] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (first === "workflows" || first === "cluster") return { view: first };
  if (EPISODE.test(first)) return { view: second ? "shot" : "board", episode: first, shot: second };
  return { view: "episodes" };
}

function Desk() {
  const [at, go] = useState(route);
  const [keys, showKeys] = useState(false);
  const [locked, lock] = useState(null);
  const [, redraw] = useState(0);
  const theme = () => {
    switchTheme();
    redraw((n) => n + 1);
  };
  useEffect(() => {
    const moved = () => {
      go((was) => ({ ...route(), from: was.shot }));
      scrollTo(0, 0);
      document.getElementById("content").focus({ preventScroll: true }); // a screen reader goes on in the new view
    };
    addEventListener("hashchange", moved);
    whenLocked(() => new Promise((entered, left) => lock({ entered, left })));
    return () => removeEventListener("hashchange", moved);
  }, []);
  useKeys("anywhere", { help: () => showKeys(true), theme });
  return html`
    <a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <${Bar} at=${at} help=${() => showKeys(true)} theme=${theme} />
    <div id="content" tabindex="-1"><${View} ...${at} /></div>
    ${keys && html`<${KeysDialog} close=${() => showKeys(false)} />`}
    ${locked && html`<${TokenDialog} entered=${() => (lock(null), locked.entered())} left=${() => (lock(null), locked.left(new Problem(401, { detail: LOCKED })))} />`}
    <${Announcer} />`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

function View({ view, episode, shot, from }) {
  if (view === "board") return html`<${Board} key=${episode} ...${{ episode, from }} />`;
  if (view === "shot") return html`<${Shot} key=${episode} episode=${episode} shot=${shot} />`;
  if (view === "workflows") return html`<${Workflows} />`;
  if (view === "cluster") return html`<${Cluster} />`;
  return html`<${Episodes} />`;
}

function Bar({ at, help, theme }) {
  const heard = useConnection();
  const here = (view) => (at.view === view ? "page" : undefined);
  useEffect(() => {
    document.title = [at.shot, at.episode ?? (at.view === "episodes" ? "" : at.view), "Tower"].filter(Boolean).join(" · ");
  }, [at]);
  return html`<nav class="bar" aria-label="Tower">
    <a class="brand" href="#/" aria-label="Tower: all episodes" aria-current=${here("episodes")}><i aria-hidden="true"></i><span class="word">Tower</span></a>
    ${at.episode && html`<span class="crumb" aria-hidden="true">/</span><a href="#/${at.episode}" aria-current=${here("board")}>${at.episode}</a>`}
    ${at.shot && html`<span class="crumb" aria-hidden="true">/</span><a href="#/${at.episode}/${at.shot}" aria-current="page">${at.shot}</a>`}
    <span class="gap"></span>
    <span class="heard" role="status">${heard ? "" : "connection lost, trying again"}</span>
    <a href="#/workflows" aria-current=${here("workflows")}>Workflows</a>
    <a href="#/cluster" aria-current=${here("cluster")}>Cluster</a>
    <button type="button" onClick=${theme}>${isLight() ? "Dark" : "Light"}</button>
    <button type="button" class="keys-button" onClick=${help}>Keys<kbd aria-hidden="true">?</kbd></button>
  </nav>`;
}

function TokenDialog({ entered, left }) {
  const [token, set] = useState("");
  const work = useWork(async () => {
    await enter(token);
    entered();
  });
  const send = (event) => {
    event.preventDefault();
    work.run();
  };
  return html`<${Dialog} title="This desk asks for its token" close=${left}>
    <form onSubmit=${send}>
      <p>Whoever started the service was shown it, or set it as <code>TOWER_DESK_TOKEN</code>. This tab keeps it until it is closed.</p>
      <label class="field">Token<input type="password" autocomplete="current-password" required value=${token} onInput=${(e) => set(e.target.value)} /></label>
      <${ProblemBox} problem=${work.problem} />
      <div class="actions"><button class="btn main" disabled=${work.busy || !token}>Enter</button></div>
    </form>
  </${Dialog}>`;
}

applyTheme();
render(html`<${Desk} />`, document.getElementById("desk"));
