// The service's answers: JSON, or a problem whose `detail` is a sentence for people.

const TOKEN = "tower.token";
let unlock = null; // asks a person for the token; main.js sets it
let asking = null; // one question, however many requests wait for its answer

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the service answered ${status}`);
    this.status = status;
    this.more = body;
  }
}

export function whenLocked(ask) {
  unlock = ask;
}

export const get = async (path, signal) => (await send("GET", path, { signal })).json();

export async function post(path, body) {
  const answer = await send("POST", path, { body });
  return answer.status === 204 ? null : answer.json();
}

export async function text(path) {
  const answer = await send("GET", path, {});
  return { text: await answer.text(), offset: Number(answer.headers.get("X-Offset") ?? 0) };
}

// The cookie that the service sets lets <video> and <img> in, which cannot send a header.
export async function enter(token) {
  await once("POST", "/token", { body: { token } }).then(checked);
  sessionStorage.setItem(TOKEN, token);
}

async function send(method, path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const answer = await once(method, path, options);
  if (answer.status !== 401) return checked(answer);
  if (token === sessionStorage.getItem(TOKEN)) {
    // Nobody has entered one since this request was sent.
    asking ??= unlock().finally(() => (asking = null));
    await asking;
  }
  return checked(await once(method, path, options));
}

async function once(method, path, { body, signal }) {
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, signal, body: form || body === undefined ? body : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service does not answer. The page asks again by itself." });
  }
}

async function checked(answer) {
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, body);
}
