// A job's state in a word.
import { html } from "../html.mjs";

const LOOKS = { succeeded: "good-text", failed: "bad-text", running: "", queued: "faint", cancelled: "faint" };

export const isFinished = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

export function Status({ job }) {
  const word = job.paused ? "paused" : job.status === "validating_files" ? "checking the file" : job.status;
  return html`<span class=${`tag ${LOOKS[job.status] ?? ""}`}>${word}</span>`;
}
