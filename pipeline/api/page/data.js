// What a view shows: loaded once, then kept up to date by the service's events.

import { useCallback, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./http.js";

const PAUSE = 700; // ms: many takes may end at once; one request then fetches them all
const AGAIN = 3000; // ms until a cut connection is tried again
const NAMES = ["take", "review", "run", "story", "live", "reset"];

const watchers = new Set(); // called with true or false: whether the service can be heard

export function useConnection() {
  const [heard, set] = useState(true);
  useEffect(() => {
    watchers.add(set);
    return () => watchers.delete(set);
  }, []);
  return heard;
}

const tell = (heard) => watchers.forEach((watcher) => watcher(heard));

// Calls `hear(name, data)` for each event, and "reset" after each cut, for what was missed.
export function useEvents(episode, hear) {
  const latest = useRef(hear);
  latest.current = hear;
  useEffect(() => {
    let source, timer, cut;
    const open = () => {
      source = new EventSource(episode ? `/events?episode=${encodeURIComponent(episode)}` : "/events");
      source.onopen = () => {
        tell(true);
        if (cut) latest.current("reset", null);
        cut = false;
      };
      source.onerror = () => {
        tell(false);
        cut = true;
        // The browser tries again after a cut, and gives up after an answer that is no stream, such as a proxy's error.
        if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN);
      };
      for (const name of NAMES) source.addEventListener(name, (event) => latest.current(name, event.data ? JSON.parse(event.data) : null));
    };
    open();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }, [episode]);
}

// {data, problem, reload, change}: `data` stays what it was until the new answer is there, so that nothing on the page jumps.
// A path of null has no data. `fresh` is false while `data` still belongs to the path before.
export function useData(path) {
  const [state, set] = useState({ path: null, data: null, problem: null });
  const timer = useRef(0);
  const wanted = useRef(path);
  wanted.current = path;
  const load = useCallback(
    async (signal) => {
      clearTimeout(timer.current);
      timer.current = 0;
      try {
        const data = await get(path, signal);
        if (!signal?.aborted && wanted.current === path) set({ path, data, problem: null });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        // A service that is away for a moment takes nothing off the page, and the bar already says that it is away.
        set((was) => {
          const kept = was.path === path && problem.status !== 404 ? was.data : null;
          return { path, data: kept, problem: kept && !problem.status ? null : problem };
        });
        if (!problem.status) timer.current = setTimeout(() => load(signal), AGAIN);
      }
    },
    [path],
  );
  useEffect(() => {
    const leave = new AbortController();
    if (path) load(leave.signal);
    return () => {
      leave.abort();
      clearTimeout(timer.current);
      timer.current = 0;
    };
  }, [path, load]);
  const reload = useCallback(() => (timer.current ||= setTimeout(load, PAUSE)), [load]);
  const change = useCallback((how) => {
    set((was) => {
      const data = was.data && how(was.data);
      return data === was.data ? was : { ...was, data };
    });
  }, []);
  if (path === null) return { data: null, problem: null, fresh: true, reload, now: load, change };
  return { ...state, fresh: state.path === path, reload, now: load, change };
}
