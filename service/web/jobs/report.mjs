// A job's report: the verdict, what needs a look, then everything else.
import { get } from "../api.mjs";
import { html, useEffect, useState } from "../html.mjs";
import { Card, ErrorNotice, Notice, Table, number, plain, useLoad } from "../parts/basics.mjs";
import { Events } from "../parts/events.mjs";
import { Findings } from "../parts/findings.mjs";
import { DrawnPicture } from "../parts/pictures.mjs";
import { Confusion } from "./confusion.mjs";

export function Report({ path, job }) {
  const report = useLoad((aborted) => get(`${path}/report`, { headers: { accept: "application/json" }, signal: aborted }), [path]);
  if (report.error?.status === 404) return html`<${Notice}>This job has no report.<//>`;
  if (!report.data) return html`<${ErrorNotice} error=${report.error} />`;
  const { data } = report;
  return html`
    <${Card} title="Report">
      ${data.verdict?.map((sentence) => html`<p>${plain(sentence)}</p>`)}
      <${Findings} report=${data} />
      <${Metrics} rows=${data.metrics?.length ? data.metrics : metricsOf(job)} />
      ${data.choices?.map((choice) => html`<p><b>${plain(choice.what)}: ${plain(choice.chosen)}.</b> ${plain(choice.reason)}</p>`)}
      ${data.confusion && html`<${Confusion} confusion=${data.confusion} />`}
      ${data.events && html`<${HeldOutEvents} events=${data.events} />`}
      ${data.pictures && html`<${Pictures} pictures=${data.pictures} />`}
      ${Object.entries(data.plot_files ?? {}).map(([name, address]) => html`<${Picture} name=${name} address=${address} />`)}
    <//>
  `;
}

function metricsOf({ result }) {
  const before = result?.incumbent_metrics ?? {};
  return Object.entries(result?.metrics ?? {}).map(([name, value]) => ({ label: name.replaceAll("_", " "), value, served_before: before[name] ?? null }));
}

function Metrics({ rows }) {
  if (!rows.length) return null;
  const columns = [
    ["Metric", (one) => plain(one.label)],
    ["This version", (one) => number(one.value)],
    ["Served before", (one) => (one.served_before === null ? "–" : number(one.served_before))],
  ];
  return html`<details><summary>Metrics</summary><${Table} label="Metrics" columns=${columns} rows=${rows} numbers=${[1, 2]} /></details>`;
}

function HeldOutEvents({ events: { found, alpha, shown } }) {
  const rows = shown.map((one) => ({ ...one, pValue: one.p_value, start: one.labelled ? `${one.start} (labelled)` : one.start }));
  const some = found > shown.length ? `, the ${shown.length} strangest` : "";
  return html`<h3>${found} events in the held-out readings at alpha ${alpha}${some}</h3><${Events} rows=${rows} />`;
}

/** Images with what a detector sees in them, as data URIs. */
function Pictures({ pictures }) {
  const titles = [...new Set(pictures.map((one) => one.title))];
  return titles.map((title) => html`
    <h3>${title}</h3>
    <div class="pictures">${pictures.filter((one) => one.title === title).map((one) => html`
      <figure><${DrawnPicture} uri=${one.image} alt=${one.caption} /><figcaption>${plain(one.caption)}</figcaption></figure>`)}</div>`);
}

/** A plot that the service draws. It is an image, so nothing in it runs. */
function Picture({ name, address }) {
  const [source, show] = useState(null);
  useEffect(() => {
    let made = null;
    get(address.replace(/^\//, ""), { as: "blob" }).then((blob) => show((made = URL.createObjectURL(blob))), () => show(null));
    return () => made && URL.revokeObjectURL(made);
  }, [address]);
  return source && html`<figure class="plot"><img src=${source} alt=${`Plot of ${name}`} /></figure>`;
}
