// One table of keys. A person may change any of them; the page remembers that in this browser.

import { useLayoutEffect, useRef } from "./vendor/preact.js";

const STORE = "tower.keys";

// room, action, key, what it does. A key of "anywhere" is no key of another room.
export const TABLE = [
  ["anywhere", "help", "?", "show the keys"],
  ["anywhere", "theme", "t", "dark or light"],
  ["board", "search", "/", "search the shots"],
  ["board", "right", "ArrowRight", "next shot"],
  ["board", "left", "ArrowLeft", "shot before"],
  ["board", "down", "ArrowDown", "a row down"],
  ["board", "up", "ArrowUp", "a row up"],
  ["board", "cut", "Space", "play the cut"],
  ["board", "render", "r", "render what is stale"],
  ["board", "pause", "p", "pause or resume"],
  ["board", "sheet", "c", "contact sheet"],
  ["board", "leave", "Escape", "all episodes"],
  ["cut", "play", "Space", "play or pause"],
  ["cut", "after", "ArrowRight", "next shot"],
  ["cut", "before", "ArrowLeft", "shot before"],
  ["cut", "open", "o", "open the shot that is shown"],
  ["shot", "play", "Space", "play or pause"],
  ["shot", "next", "ArrowRight", "one frame on"],
  ["shot", "previous", "ArrowLeft", "one frame back"],
  ["shot", "first", "Home", "first frame"],
  ["shot", "last", "End", "last frame"],
  ["shot", "fault", "x", "next frame that a gate names"],
  ["shot", "faster", "l", "forward, then faster"],
  ["shot", "stop", "k", "stop"],
  ["shot", "slower", "j", "slower, then backward"],
  ["shot", "after", "alt+ArrowRight", "next shot"],
  ["shot", "before", "alt+ArrowLeft", "shot before"],
  ["shot", "side", "s", "choose the other side, A or B"],
  ["shot", "wipe", "w", "wipe between A and B"],
  ["shot", "wipe_right", "shift+ArrowRight", "move the wipe right"],
  ["shot", "wipe_left", "shift+ArrowLeft", "move the wipe left"],
  ["shot", "difference", "d", "difference of A and B"],
  ["shot", "onion", "o", "onion skin: the frames beside this one"],
  ["shot", "approve", "a", "approve the chosen take"],
  ["shot", "retake", "r", "ask for a retake"],
  ["shot", "use", "u", "use the chosen take"],
  ["shot", "note", "n", "note on this frame or range"],
  ["shot", "from", "[", "the range begins here"],
  ["shot", "until", "]", "the range ends here"],
  ["shot", "draw", "p", "draw on the picture"],
  ["shot", "leave", "Escape", "back to the board"],
  ...Array.from({ length: 9 }, (_, k) => ["shot", `take${k + 1}`, `${k + 1}`, `take ${k + 1} into the chosen side`]),
];

const changed = () => JSON.parse(localStorage.getItem(STORE) ?? "{}");

export function keyOf(room, action) {
  return changed()[`${room}.${action}`] ?? TABLE.find(([r, a]) => r === room && a === action)[2];
}

// null, or what already has the key there.
export function takenBy(room, action, key) {
  const meets = (other) => other === room || other === "anywhere" || room === "anywhere";
  return TABLE.find(([r, a]) => meets(r) && !(r === room && a === action) && keyOf(r, a) === key) ?? null;
}

export function setKey(room, action, key) {
  localStorage.setItem(STORE, JSON.stringify({ ...changed(), [`${room}.${action}`]: key }));
}

export const forgetKeys = () => localStorage.removeItem(STORE);

const GLYPHS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Space: "space", Escape: "esc", Enter: "enter" };

export function glyph(key) {
  const parts = key.split(/\+(?=.)/);
  return parts.map((part) => GLYPHS[part] ?? part.toLowerCase()).join(" ");
}

export const glyphOf = (room, action) => glyph(keyOf(room, action));

export function nameOf(event) {
  const key = event.key === " " ? "Space" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && event.key.length > 1; // "?" already says that shift was held
  return `${event.altKey ? "alt+" : ""}${shift ? "shift+" : ""}${key}`;
}

const layers = []; // the newest view last

// While mounted, the room's keys call `handlers[action]`. An `idle` room takes its keys and does nothing, so that the browser does
// nothing either, such as going back. A `modal` room also acts inside its dialog.
export function useKeys(room, handlers, { idle = false, modal = false } = {}) {
  const latest = useRef(handlers);
  latest.current = idle ? {} : handlers;
  useLayoutEffect(() => {
    const layer = { room, modal, call: (action, event) => latest.current[action]?.(event) };
    layers.push(layer);
    return () => layers.splice(layers.indexOf(layer), 1);
  }, [room, modal]);
}

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.isComposing) return;
  if (types(event.target) || belongs(event)) return;
  const key = nameOf(event);
  const open = document.querySelector("dialog[open]");
  for (const layer of [...layers].reverse()) {
    if (open && !layer.modal) continue;
    const row = TABLE.find(([room, action]) => room === layer.room && keyOf(room, action) === key);
    if (!row) continue;
    event.preventDefault();
    layer.call(row[1], event);
    return;
  }
}

const types = (element) => element.isContentEditable || (element.matches("input, textarea, select") && !element.matches("[type=range], [type=checkbox], [type=radio], [type=file]"));

// Some keys belong to the element that has the focus: arrows to a slider, space and enter to a button that the keyboard reached.
let byKeyboard = false;

function belongs(event) {
  if (event.altKey) return false;
  if (event.target.matches("[type=range]")) return /^(Arrow|Home|End|Page)/.test(event.key);
  if (event.key === "Enter") return event.target.matches("a, button, summary, input");
  return event.key === " " && byKeyboard && event.target.matches("button, summary, input");
}

addEventListener("pointerdown", () => (byKeyboard = false), true);
addEventListener("keydown", (event) => event.key === "Tab" && (byKeyboard = true), true);
addEventListener("keydown", onKey);
