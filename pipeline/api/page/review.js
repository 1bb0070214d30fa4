// What a person says of a take: a note, a retake with what should change, and who says it.

import { html, useRef, useState } from "./vendor/preact.js";
import { post } from "./http.js";
import { Dialog, ProblemBox, announce, keepName, myName, useWork } from "./ui.js";
import { many, meant, plain, shown, takeName } from "./words.js";

function Name({ name, set }) {
  return html`<label class="field">Your name<input required maxlength="100" autocomplete="name" value=${name} onInput=${(event) => set(event.target.value)} /></label>`;
}

function useSay(said) {
  return useWork(async (review) => {
    keepName(review.by);
    await post("/reviews", review);
    await said();
  });
}

const submitted = (work) => (event) => {
  event.preventDefault();
  work();
};

export function NameDialog({ named, close }) {
  const [name, set] = useState("");
  const send = submitted(() => {
    keepName(name.trim());
    named();
  });
  return html`<${Dialog} title="Who says so?" close=${close}><form onSubmit=${send}>
    <p>Your name stands beside what you decide. This browser remembers it.</p>
    <${Name} name=${name} set=${set} />
    <div class="actions"><button class="btn main" disabled=${!name.trim()}>Go on</button></div>
  </form></${Dialog}>`;
}

export function NoteDialog({ take, range, lines, said, close }) {
  const [note, write] = useState("");
  const [name, set] = useState(myName);
  const [from, begin] = useState(shown(range[0]));
  const [until, end] = useState(shown(range[1]));
  const say = useSay(said);
  const send = submitted(() =>
    say.run({ take: take.take, verdict: "note", note: note.trim(), by: name.trim(), first_frame: meant(Number(from)), last_frame: meant(Math.max(Number(from), Number(until))), drawing: lines.length ? lines : null }),
  );
  return html`<${Dialog} title="Note on ${takeName(take.take)}" close=${close}><form onSubmit=${send}>
    <label class="field">What you see<textarea rows="3" maxlength="2000" autofocus required=${!lines.length} value=${note} onInput=${(event) => write(event.target.value)}></textarea></label>
    ${take.frames > 1 && html`<div class="pair"><label class="field">From frame<input type="number" required min="1" max=${take.frames} value=${from} onInput=${(event) => begin(event.target.value)} /></label>
      <label class="field">to frame<input type="number" required min=${from} max=${take.frames} value=${until} onInput=${(event) => end(event.target.value)} /></label></div>`}
    ${lines.length > 0 && html`<p class="quiet">With what you drew on frame ${from}.</p>`}
    <${Name} name=${name} set=${set} />
    <${ProblemBox} problem=${say.problem} />
    <div class="actions"><button class="btn main" disabled=${say.busy || !name.trim()}>Keep the note</button></div>
  </form></${Dialog}>`;
}

// The retake is asked for in any case: what keeps a render from starting is only told.
async function startRender({ episode, card }) {
  try {
    await post("/jobs", { episode, only: [card.shot] });
    return `${card.shot} is being made again.`;
  } catch (problem) {
    return `${card.shot} is stale now, and no render was started: ${problem.message}`;
  }
}

const REST = { keyframe: "What was made from it is made again too.", clip: "The keyframe stays.", finish: "The keyframe and the clip stay." };

export function RetakeDialog({ page, take, said, close }) {
  const [note, write] = useState("");
  const [name, set] = useState(myName);
  const [prompt, compose] = useState(page.prompt);
  const [seed, sow] = useState("");
  const [changed, change] = useState({});
  const renders = useRef(false);
  const parameters = Object.entries(page.parameters?.[take.stage] ?? {});
  const drawn = take.stage !== "finish"; // from a prompt and a seed
  const say = useSay(async () => {
    await said();
    announce(renders.current ? await startRender(page) : `${page.card.shot} is stale now: the next render makes it again.`);
  });
  const send = (now) => {
    renders.current = now;
    const numbers = Object.fromEntries(Object.entries(changed).filter(([, value]) => value !== "").map(([key, value]) => [key, Number(value)]));
    say.run({
      take: take.take, verdict: "retake", note: note.trim(), by: name.trim(), seed: seed === "" ? null : Number(seed),
      prompt: prompt.trim() && prompt.trim() !== page.prompt ? prompt.trim() : null, parameters: numbers,
    });
  };
  return html`<${Dialog} title="Retake of ${page.card.shot}, ${take.stage}" close=${close}><form onSubmit=${submitted(() => send(false))}>
    <p class="quiet">${takeName(take.take)} and all ${many(take.stage)} before it count no more. ${REST[take.stage]}</p>
    <label class="field">What should be different<textarea rows="3" maxlength="2000" autofocus required value=${note} onInput=${(event) => write(event.target.value)}></textarea></label>
    <details><summary>Change ${drawn ? "the prompt, the seed or a setting" : "a setting"} for this shot</summary>
      ${drawn && html`<label class="field">Prompt<textarea rows="3" value=${prompt} onInput=${(event) => compose(event.target.value)}></textarea></label>`}
      <div class="pair">${drawn && html`<label class="field">Seed<input type="number" min="0" max="4294967295" step="1" placeholder="as it comes" value=${seed} onInput=${(event) => sow(event.target.value)} /></label>`}
      ${parameters.map(([key, { now, low, high }]) => html`<label class="field">${plain(key)}<input type="number" step="any" min=${low} max=${high} placeholder=${now} value=${changed[key] ?? ""} onInput=${(event) => change({ ...changed, [key]: event.target.value })} /></label>`)}</div>
    </details>
    <${Name} name=${name} set=${set} />
    <${ProblemBox} problem=${say.problem} />
    <div class="actions"><button class="btn main" disabled=${say.busy || !name.trim() || !note.trim()}>Ask for the retake</button>
      <button type="button" class="btn" disabled=${say.busy || !name.trim() || !note.trim()} onClick=${(event) => event.target.form.reportValidity() && send(true)}>Ask, and render it now</button></div>
  </form></${Dialog}>`;
}
