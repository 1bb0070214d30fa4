// Small parts that all views share.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { glyphOf } from "./keys.js";
import { STATES } from "./words.js";

export function State({ state, step, by }) {
  const [word, tone] = STATES[state] ?? [state, "idle"];
  return html`<span class="state ${tone}">${word}${step ? ` · ${step}` : ""}${by ? ` · ${by}` : ""}</span>`;
}

// `room` and `action` name the key that does the same.
export function Button({ room, action, main, on, disabled, title, press, children, ...rest }) {
  const key = action ? glyphOf(room, action) : "";
  return html`<button type="button" class="btn ${main ? "main" : ""} ${on ? "on" : ""}" aria-pressed=${on === undefined ? undefined : String(on)}
    aria-keyshortcuts=${key || undefined} disabled=${disabled} title=${title} onClick=${press} ...${rest}>${children}${key && html`<kbd aria-hidden="true">${key}</kbd>`}</button>`;
}

export function ProblemBox({ problem, children }) {
  if (!problem) return null;
  const word = problem.status === 0 ? "no answer" : problem.status === 404 ? "not there" : problem.status < 500 ? "refused" : "failed";
  return html`<div class="problem" role="alert"><span class="state bad">${word}</span> ${problem.message}${children}</div>`;
}

// A view whose data is not there yet. The word appears only where the wait is long enough to be noticed.
export function Waiting({ problem }) {
  return html`<main class="page"><div class="body">${problem ? html`<${ProblemBox} problem=${problem} /><p class="links"><a href="#/">All episodes</a></p>` : html`<p class="waiting quiet">Loading…</p>`}</div></main>`;
}

// A modal dialog: the browser keeps the focus inside, closes it at Escape and gives the focus back.
export function Dialog({ title, close, wide, children }) {
  const node = useRef();
  useEffect(() => {
    node.current.showModal();
  }, []);
  const outside = (event) => event.target === node.current && event.clientX > 0 && node.current.close();
  return html`<dialog ref=${node} class=${wide ? "wide" : ""} aria-labelledby="dialog-title" onClose=${close} onMouseDown=${outside}>
    <div class="dialog">
      <header><h2 id="dialog-title">${title}</h2><button type="button" class="btn plain" onClick=${() => node.current.close()}>Close<kbd aria-hidden="true">esc</kbd></button></header>
      ${children}
    </div>
  </dialog>`;
}

// Runs `work` once at a time; {busy, problem, run}.
export function useWork(work) {
  const [state, set] = useState({ busy: false, problem: null });
  const running = useRef(false);
  const run = async (...given) => {
    if (running.current) return;
    running.current = true;
    set({ busy: true, problem: null });
    try {
      await work(...given);
      set({ busy: false, problem: null });
    } catch (problem) {
      set({ busy: false, problem });
    } finally {
      running.current = false;
    }
  };
  return { ...state, run, forget: () => set({ busy: false, problem: null }) };
}

// One line at the foot of the page that says what was done, for eyes and for screen readers.
let say = () => {};
export const announce = (text) => say(text);

export function Announcer() {
  const [text, set] = useState("");
  say = set;
  useEffect(() => {
    const timer = text && setTimeout(() => set(""), 6000);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<div class="announcer ${text ? "told" : ""}" role="status">${text}</div>`;
}

const NAME = "tower.name";
export const myName = () => localStorage.getItem(NAME) ?? "";
export const keepName = (name) => localStorage.setItem(NAME, name);
