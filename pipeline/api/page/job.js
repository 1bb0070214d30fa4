// The job that renders an episode: what is known of it before its render tells of itself, and after.

import { useEffect } from "./vendor/preact.js";
import { useData } from "./data.js";

const LOOK = 3000; // ms: a job that only starts, or only assembles, sends no events
const ALIVE = ["queued", "running", "paused"];

// {job: the one that is under way, failed: the newest one if it failed, reload}; calls `ended` when one has ended.
export function useJob(episode, live, ended) {
  const jobs = useData(`/jobs?episode=${encodeURIComponent(episode)}`);
  const newest = jobs.data?.[0];
  const job = jobs.data?.find(({ state }) => ALIVE.includes(state)) ?? null;
  const silent = job !== null && !live;
  useEffect(() => {
    if (!silent) return;
    const timer = setInterval(jobs.reload, LOOK);
    return () => clearInterval(timer);
  }, [silent, jobs.reload]);
  useEffect(() => {
    if (jobs.data && !job) ended();
  }, [job?.job]);
  return { job, failed: newest?.state === "failed" ? newest : null, reload: jobs.reload };
}
