// Numbers, times and states as people read them.

// The interface counts frames from 0, people count from 1. Only this function and its inverse know it.
export const shown = (frame) => frame + 1;
export const meant = (number) => number - 1;

// What a shot or a take can be: the word that people read, and the tone that colours its dot.
export const STATES = {
  accepted: ["accepted", "ok"],
  approved: ["approved", "lamp"],
  picked: ["picked", "lamp"],
  retake: ["retake asked", "ask"],
  rendering: ["rendering", "run"],
  exhausted: ["exhausted", "bad"],
  rejected: ["rejected", "bad"],
  waiting: ["waiting", "idle"],
  error: ["error", "bad"],
};

export function frames(first, last) {
  if (first === null || first === undefined) return "";
  const until = last ?? first;
  return until > first ? `${shown(first)}–${shown(until)}` : `${shown(first)}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value * 10) / 10} s`;
  const minutes = Math.round(value / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function figure(value) {
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return String(Number(value.toFixed(Math.min(digits, 6))));
}

export function bytes(value) {
  return value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : `${Math.round(value / 1e6)} MB`;
}

export function minutes(value) {
  return value < 0.1 ? "under 0.1 GPU-min" : `${figure(Math.round(value * 10) / 10)} GPU-min`;
}

export function about(value) {
  return value < 0.1 ? minutes(value) : `about ${minutes(value)}`;
}

// How long a plan's stale shots take; shots of workflows that nobody timed on these devices are counted apart.
export function estimate({ stale, gpu_minutes: known, unknown }) {
  if (unknown && unknown === stale) return "nobody timed it yet";
  return `${about(known)}${unknown ? `, and ${count(unknown, "shot")} that nobody timed yet` : ""}`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// The hour of today, the day of any other day.
export function when(iso) {
  const time = new Date(iso);
  const today = new Date().toDateString() === time.toDateString();
  return today ? clock(time) : time.toLocaleDateString("en", { day: "numeric", month: "short" });
}

export function clock(time) {
  return time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

export const doneAbout = (live) => (live.eta_seconds === null ? "" : clock(new Date(Date.parse(live.at) + live.eta_seconds * 1000)));

// What several takes of a stage are called.
export const many = (stage) => (stage === "finish" ? "finishes" : `${stage}s`);

// "E01/SH0060/clip/v003" is named "clip v003" wherever its shot is known.
export function takeName(take) {
  const [, , stage, version] = take.split("/");
  return `${stage} ${version}`;
}

// "allowed" where more would be a fault, "wants" where less would be.
export function threshold(finding) {
  if (finding.value === finding.threshold) return `wants ${figure(finding.threshold)}`;
  const over = finding.value > finding.threshold;
  return `${over === (finding.outcome !== "pass") ? "allowed" : "wants"} ${figure(finding.threshold)}`;
}

// Without the place in the program that computes it.
export const saying = (text) => text.replace(/ \([\w.]+\)$/, "");

export const plain = (name) => name.replaceAll("_", " ");
