// One job: how far it is, what happened, and its report.
import { get, part, post } from "../api.mjs";
import { html, useEffect, useRef, useState } from "../html.mjs";
import { Button, Card, Confirm, ErrorNotice, Loading, Notice, number, plain, time, useAction, useEvery, useLoad } from "../parts/basics.mjs";
import { Plot } from "../parts/plot.mjs";
import { link } from "../route.mjs";
import { Report } from "./report.mjs";
import { Status, isFinished } from "./status.mjs";

const EVERY_S = 2;
const KEPT_EVENTS = 2000;

export function Job({ id }) {
  const path = `v1/fine_tuning/jobs/${part(id)}`;
  const job = useLoad((aborted) => get(path, { signal: aborted }), [id]);
  const events = useEvents(path);
  const isLive = !(job.data && isFinished(job.data)) && job.error?.status !== 404;
  useEvery(isLive ? EVERY_S : 0, () => (job.reload(), events.more()));
  useEffect(() => void events.more(), [isLive]);
  if (job.error?.status === 404)
    return html`<${Notice} kind="bad">This job is gone: ${plain(job.error.message)}. <a href="#/jobs">Back to all jobs</a><//>`;
  if (!job.data) return job.error ? html`<${ErrorNotice} error=${job.error} />` : html`<${Loading} />`;
  return html`
    <p><a href="#/jobs">All jobs</a></p>
    <h1>${plain(title(job.data))}</h1>
    <${ErrorNotice} error=${job.error ?? events.error} />
    <${Verdict} job=${job.data} />
    <${Controls} path=${path} job=${job.data} onDone=${job.reload} />
    <${Progress} job=${job.data} events=${events.list} />
    ${isFinished(job.data) && html`<${Report} path=${path} job=${job.data} />`}
    <${Events} list=${events.list} />
  `;
}

const title = (job) => job.fine_tuned_model ?? `${job.method.supervised.task} on ${job.model}`;

function Verdict({ job }) {
  const { result } = job;
  return html`
    <p class="row"><${Status} job=${job} /> <span class="faint">begun ${time(job.created_at)}</span></p>
    ${job.waiting && html`<${Notice} kind="warn">${plain(job.waiting)}<//>`}
    ${job.error && html`<${Notice} kind="bad"><b>${plain(job.error.code)}.</b> ${plain(job.error.message)}<//>`}
    ${result &&
    html`<${Notice} kind=${result.decision === "promoted" ? "good" : "warn"}>
      <b>Version ${result.version} ${result.decision === "promoted" ? "is promoted: it serves now" : "is held: it does not serve"}.</b> ${plain(result.why)}
      <p><a href=${link("models", job.fine_tuned_model.replace(/:v\d+$/, ""))}>Versions of this model</a></p>
    <//>`}
  `;
}

function Controls({ path, job, onDone }) {
  const [asks, ask] = useState(false);
  const [state, act] = useAction(async (what) => {
    ask(false);
    await post(`${path}/${what}`);
    onDone();
  });
  if (isFinished(job)) return null;
  return html`
    <div class="row">
      ${job.paused ? html`<${Button} onClick=${() => act("resume")}>Resume<//>` : html`<${Button} quiet onClick=${() => act("pause")}>Pause<//>`}
      <${Button} quiet onClick=${() => ask(true)}>Cancel<//>
    </div>
    <${ErrorNotice} error=${state.error} />
    ${asks && html`<${Confirm} title="Cancel this job?" action="Cancel the job" onYes=${() => act("cancel")} onNo=${() => ask(false)}>
      <p>What it has learnt so far is lost. Pause it instead to go on later.</p>
    <//>`}
  `;
}

function Progress({ job, events }) {
  const metrics = events.filter((event) => event.type === "metrics").map((event) => event.data);
  const last = metrics.at(-1);
  // A later attempt or another network begins its steps again: the newest run alone is drawn.
  const from = metrics.reduce((begin, one, at) => (at > 0 && one.step < metrics[at - 1].step ? at : begin), 0);
  const run = metrics.slice(from).filter((one) => typeof one.loss === "number");
  if (!last || (isFinished(job) && run.length < 2)) return null;
  return html`
    <${Card} title="Training">
      ${!isFinished(job) && last.total_steps && html`<progress value=${last.step} max=${last.total_steps} aria-label="Steps done" />`}
      <p>Step ${last.step} of ${last.total_steps ?? "?"}${Number.isFinite(last.loss) ? `, loss ${number(last.loss)}` : ""}${!isFinished(job) && last.eta_s ? `, about ${Math.ceil(last.eta_s)} s left` : ""}.</p>
      ${run.length > 1 && html`<${Plot} label="Loss by step" x=${run.map((one) => one.step)} lines=${[{ label: "loss", values: run.map((one) => one.loss) }]} height=${180} />`}
    <//>
  `;
}

function Events({ list }) {
  const messages = list.filter((event) => event.type === "message").reverse();
  const looks = { warn: "warn-text", error: "bad-text" };
  return html`
    <${Card} title="Events">
      <ul class="plain" aria-live="polite">
        ${messages.slice(0, 200).map((event) => html`<li class=${looks[event.level]}><small>${time(event.created_at)}</small> ${plain(event.message)}</li>`)}
      </ul>
      ${!messages.length && html`<p class="faint">Nothing has happened yet.</p>`}
    <//>
  `;
}

/** A job's events, oldest first: those after the newest known one are read at each look. */
function useEvents(path) {
  const [list, keep] = useState([]);
  const newest = useRef(null);
  const [{ error }, more] = useAction(async () => {
    let [after, page] = [null, null];
    const [known, fresh] = [newest.current, []];
    do {
      page = await get(`${path}/events?limit=100${after ? `&after=${after}` : ""}`);
      const end = page.data.findIndex((event) => event.id === known);
      fresh.push(...(end < 0 ? page.data : page.data.slice(0, end)));
      after = end < 0 && page.has_more && fresh.length < KEPT_EVENTS ? page.data.at(-1).id : null;
    } while (after);
    newest.current = fresh[0]?.id ?? known;
    if (fresh.length) keep((before) => [...before, ...fresh.reverse()].slice(-KEPT_EVENTS));
  });
  return { list, error: error?.status === 404 ? null : error, more };
}
