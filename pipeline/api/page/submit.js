// Submit an episode: choose or drop its files, read what the service says of them, send them.

import { html, useEffect, useState } from "./vendor/preact.js";
import { post } from "./http.js";
import { Dialog, ProblemBox, announce, useWork } from "./ui.js";
import { count, about } from "./words.js";

const AROUND = 2; // lines of the file that are shown before and after a faulty one

// True while files are held over the page; calls `given` with them when they are dropped.
export function useDrop(given) {
  const [over, set] = useState(false);
  useEffect(() => {
    const hold = (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      set(true);
    };
    const leave = (event) => event.relatedTarget === null && set(false);
    const drop = (event) => {
      event.preventDefault();
      set(false);
      if (event.dataTransfer.files.length) given([...event.dataTransfer.files]);
    };
    addEventListener("dragover", hold);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", hold);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, [given]);
  return over;
}

const isStory = (file) => /\.ya?ml$/i.test(file.name);

function form(files) {
  const sent = new FormData();
  for (const file of files) sent.append(isStory(file) ? "story" : "files", file, file.name);
  return sent;
}

export function SubmitDialog({ given, close }) {
  const [files, choose] = useState(given);
  const [found, find] = useState(null);
  const [text, read] = useState("");
  const story = files.find(isStory);
  const check = useWork(async () => {
    find(null);
    read(await story.text());
    find(await post("/episodes/validate", form(files)));
  });
  const send = useWork(async () => {
    const done = await post("/episodes", form(files));
    announce(`${done.episode} ${done.title} is submitted.`);
    close();
    location.hash = `#/${done.episode}`;
  });
  useEffect(() => {
    if (story) check.run();
  }, [files]);
  const problem = send.problem ?? check.problem;
  // A picker gives one folder's files; choosing again adds to what is there, and a newer file of the same name takes its place.
  const add = (event) => {
    const more = [...event.target.files];
    choose((was) => [...was.filter((f) => !more.some((m) => m.name === f.name || (isStory(m) && isStory(f)))), ...more]);
  };
  return html`<${Dialog} title="Submit an episode" close=${close}>
    <label class="field">The episode's YAML file, and the pictures, sounds and font that it names
      <input type="file" multiple accept=".yaml,.yml,image/*,audio/*,.ttf,.otf" onChange=${add} /></label>
    ${files.length > 0 && html`<ul class="files">${files.map((file) => html`<li><code>${file.name}</code>${isStory(file) ? html` <span class="quiet">the episode</span>` : ""}</li>`)}</ul>`}
    ${files.length > 0 && !story && html`<p class="problem" role="alert">One of the files must be the episode: a file whose name ends with .yaml.</p>`}
    <div role="status">${found && html`<${Found} found=${found} />`}</div>
    <${ProblemBox} problem=${problem}>${problem?.more?.line && html`<${Place} text=${text} line=${problem.more.line} />`}</${ProblemBox}>
    <div class="actions"><button type="button" class="btn main" disabled=${!found || send.busy || check.busy} onClick=${() => send.run()}>Submit${found ? ` ${found.episode}` : ""}</button></div>
  </${Dialog}>`;
}

function Found({ found }) {
  return html`<div class="found"><b>${found.title}</b>
    <p>${found.episode} · ${count(found.shots, "shot")}, ${found.stale} to render${found.stale && found.gpu_minutes !== null ? ` · ${about(found.gpu_minutes)}` : ""}</p>
    ${found.notes.map((note) => html`<p class="quiet">${note}</p>`)}</div>`;
}

function Place({ text, line }) {
  const lines = text.split("\n");
  const from = Math.max(0, line - 1 - AROUND);
  return html`<pre class="place" tabindex="0" aria-label="the file around line ${line}">${lines.slice(from, line + AROUND).map(
    (words, k) => html`<span class=${from + k === line - 1 ? "here" : ""}><i>${from + k + 1}</i>${words}\n</span>`,
  )}</pre>`;
}
