// Overview: what serves, how it does at the moment, and what is wrong.
import { call, get } from "../api.mjs";
import { html, useEffect, useState } from "../html.mjs";
import { growth, look, looks, quantile, samples, total } from "../metrics.mjs";
import { loadModels } from "../models.mjs";
import { Card, ErrorNotice, Loading, Notice, PagedTable, count, milliseconds, number, plain, useEvery, useLoad } from "../parts/basics.mjs";
import { Line } from "../parts/line.mjs";
import { problems } from "../problems.mjs";

const EVERY_S = 5;
const OWN = /^\/(console|docs|openapi\.json|metrics|health|version|static-offline-docs)|^\/$/;
const isWork = ({ route }) => !OWN.test(route);
const isFault = ({ route, status }) => !OWN.test(route) && Number(status) >= 500;

export default function Overview() {
  const [error, fail] = useState(null);
  const service = useLoad(loadService);
  const refresh = () => look().then(() => fail(null), fail);
  useEffect(() => void refresh(), []);
  useEvery(EVERY_S, refresh);
  useEvery(30, service.reload);
  const seen = looks.value;
  const [first, last] = [seen[0], seen.at(-1)];
  return html`
    <h1>Overview</h1>
    <${ErrorNotice} error=${error ?? service.error} />
    ${last && service.data ? html`<${Problems} found=${problems(first, last, service.data)} />` : html`<${Loading} />`}
    ${last && html`<${Numbers} seen=${seen} />`}
    ${service.data && html`<${Models} models=${service.data.models} first=${first} last=${last} />`}
  `;
}

async function loadService(aborted) {
  const [models, health, jobs] = await Promise.all([
    loadModels(aborted),
    // 503 is an answer here: it says what is not ready.
    call("GET", "health", { signal: aborted }).catch((error) => (error.status === 503 ? { status: "unavailable", reason: error.message } : Promise.reject(error))),
    get("v1/fine_tuning/jobs?limit=20", { signal: aborted }).catch((error) => (error.status === 403 ? null : Promise.reject(error))),
  ]);
  return { models, health, jobs: jobs?.data ?? [] };
}

function Problems({ found }) {
  if (!found.length) return html`<${Notice} kind="good">Nothing is wrong.<//>`;
  return found.map(({ kind, message }) => html`<${Notice} kind=${kind}>${plain(message)}<//>`);
}

function Numbers({ seen }) {
  const [first, last] = [seen[0], seen.at(-1)];
  const span = last.at - first.at;
  const requests = growth(first, last, "sonde_requests_total", isWork);
  const faults = growth(first, last, "sonde_requests_total", isFault);
  const since = span < 1 ? "since the page opened" : `in the last ${Math.round(span)} s`;
  const pairs = seen.slice(1).map((one, at) => [seen[at], one]);
  const latency = (level) => quantile(first, last, "sonde_request_seconds", level, isWork);
  return html`
    <div class="grid">
      <${Figure} title="Requests" value=${count(requests)} note=${since}
        points=${pairs.map(([a, b]) => growth(a, b, "sonde_requests_total", isWork) / (b.at - a.at))} />
      <${Figure} title="Latency, median" value=${milliseconds(latency(0.5))} note=${`95 % within ${milliseconds(latency(0.95))}`}
        points=${pairs.map(([a, b]) => quantile(a, b, "sonde_request_seconds", 0.5, isWork) || 0)} />
      <${Figure} title="Queue" value=${count(total(last, "sonde_queue_items"))} note=${`${count(total(last, "sonde_queue_tokens"))} tokens wait`}
        points=${seen.map((one) => total(one, "sonde_queue_items"))} />
      <${Figure} title="Failures" value=${count(faults)} note=${`answers 5xx ${since}`}
        points=${pairs.map(([a, b]) => growth(a, b, "sonde_requests_total", isFault))} />
    </div>
  `;
}

function Figure({ title, value, note, points }) {
  return html`
    <section class="card">
      <h2>${title}</h2>
      <div class="figure">${value}</div>
      <small>${note}</small>
      <${Line} points=${points} label=${`${title}, over time`} />
    </section>
  `;
}

function Models({ models, first, last }) {
  const inputs = (name) => (last ? growth(first, last, "sonde_inputs_total", ({ model }) => model === name) : 0);
  const wait = (name) => (last ? quantile(first, last, "sonde_queue_wait_seconds", 0.5, ({ model }) => model === name) : NaN);
  const columns = [
    ["Model", (one) => html`<span class="mono">${plain(one.id)}</span>`],
    ["Task", (one) => one.task],
    ["Version", (one) => html`<span class="mono">${plain(one.version).slice(0, 12)}</span>`],
    ["Device", (one) => one.device],
    ["Dtype", (one) => one.dtype],
    ["Inputs", (one) => number(inputs(one.id))],
    ["Wait", (one) => milliseconds(wait(one.id))],
    ["Drift", (one) => (samples(last, "sonde_drift_detected").some(({ labels, value }) => labels.model === one.id && value) ? "yes" : "–")],
  ];
  return html`
    <${Card} title="Models in service">
      <${PagedTable} label="Models in service" rows=${models} columns=${columns} numbers=${[5, 6]} text=${(one) => `${one.id} ${one.task}`} />
    <//>
  `;
}
