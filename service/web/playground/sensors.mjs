// Readings of sensors: what is strange, since when, and which column is to blame.
import { html, useState } from "../html.mjs";
import { Card, Field, Notice, PagedTable, number, percent, plain } from "../parts/basics.mjs";
import { Events } from "../parts/events.mjs";
import { Plot } from "../parts/plot.mjs";
import { RequestForm, useRequest } from "./form.mjs";
import { ReadingsField, places, readRows, useReadings } from "./readings.mjs";

const MISSING = "No sensor model is in service. Drop a CSV of normal operation under Jobs to train one.";

export default function Sensors({ models }) {
  const suitable = models.filter((one) => one.task === "anomaly" && one.base === "sensors");
  const request = useRequest("v1/anomaly/score", suitable);
  const readings = useReadings();
  const [alpha, setAlpha] = useState("0.01");
  const signature = suitable.find((one) => one.id === request.model)?.signature;
  const { data } = request.state;
  function build() {
    const { rows, timestamps } = readRows(readings.text, signature.inputs[0].columns);
    const stamped = timestamps && signature.kind === "series" ? { timestamps } : {};
    const events = signature.kind === "series" ? { events: true } : {};
    return { [signature.kind]: rows, ...stamped, alpha: Number(alpha), contributions: true, ...events };
  }
  return html`
    <${RequestForm} request=${request} action="Score" build=${build} missing=${MISSING}>
      <${ReadingsField} readings=${readings} columns=${signature?.inputs[0].columns ?? []} />
      <${Field} label="Alarm rate" hint="The share of normal readings that may be called anomalies.">
        <input inputmode="decimal" value=${alpha} onInput=${(event) => setAlpha(event.target.value)} />
      <//>
    <//>
    ${data && html`<${Scores} data=${data} columns=${signature.inputs[0].columns} key=${data.answer} />`}
  `;
}

function Scores({ data: { body, answer }, columns }) {
  const [drawn] = useState(() => draw(body, answer, columns));
  const strange = answer.data.filter((one) => one.is_anomaly);
  const blamed = blame(strange);
  const at = (place) => body.timestamps?.[place.index] ?? place.index + 1;
  const events = answer.events?.map((one) => ({ ...one, start: at(one.start), end: one.open ? null : at(one.end), pValue: one.peak.p_value, columns: mainColumns(one) }));
  const table = [
    ["Row", (one) => one.index + 1],
    ["Time", (one) => plain(body.timestamps?.[one.index] ?? "–")],
    ["p-value", (one) => number(one.p_value)],
    ["Blamed column", (one) => plain(blame([one])[0]?.[0] ?? "–")],
  ];
  return html`
    <${Notice} kind=${strange.length ? "warn" : "good"}>
      ${strange.length ? `${strange.length} of ${answer.data.length} readings are anomalies (${percent(strange.length / answer.data.length)}).` : `None of ${answer.data.length} readings is an anomaly.`}
      ${blamed.length > 0 && html` Mostly to blame: <b>${plain(blamed[0][0])}</b> (${percent(blamed[0][1], 0)} of their scores).`}
    <//>
    ${answer.drift?.detected && html`<${Notice} kind="warn">The readings have drifted from those of the training.<//>`}
    ${answer.warnings.map((warning) => html`<${Notice} kind="warn">${plain(warning)}<//>`)}
    ${events && html`<${Card} title="Events"><${Events} rows=${events} /><//>`}
    <${Card} title="Readings"><${Plot} label="Readings over time; dots are anomalies, on the columns to blame" x=${drawn.x} isTime=${drawn.isTime} lines=${drawn.readings} /><//>
    <${Card} title="Score"><${Plot} label="Score and threshold over time" x=${drawn.x} isTime=${drawn.isTime} lines=${drawn.scores} height=${160} /><//>
    <${Card} title="Anomalies"><${PagedTable} label="Anomalies" rows=${strange} text=${(one) => `${one.index + 1} ${body.timestamps?.[one.index] ?? ""}`} columns=${table} numbers=${[0, 2]} empty="None." /><//>
  `;
}

function draw(body, answer, columns) {
  const rows = body.series ?? body.records;
  const strange = answer.data.filter((one) => one.is_anomaly).map((one) => one.index);
  const score = answer.data.map((one) => one.score);
  const limit = answer.threshold === null ? [] : [{ label: "threshold", values: score.map(() => answer.threshold), dashes: [6, 4], colour: "#c2571a" }];
  return {
    ...places(body.timestamps, rows.length),
    readings: [...columns.map((name, at) => ({ label: plain(name), values: rows.map((row) => row[at]) })), ...marks(answer, rows, strange, columns)],
    scores: [{ label: "score", values: score }, ...limit],
  };
}

/** Dots on each column that is to blame: by the events of a series, by the reading itself in records. */
function marks(answer, rows, strange, columns) {
  const blamed = new Map(columns.map((name) => [name, new Set()]));
  for (const index of strange) {
    const event = answer.events?.find((one) => one.start.index <= index && (one.open || index <= one.end.index));
    const names = event ? mainColumns(event) : blame([answer.data[index]]).slice(0, 1).map(([name]) => name);
    names.forEach((name) => blamed.get(name)?.add(index));
  }
  return columns.flatMap((name, at) =>
    blamed.get(name).size ? [{ label: `anomaly: ${plain(name)}`, values: rows.map((row, index) => (blamed.get(name).has(index) ? row[at] : null)), isPoints: true, colour: "#d02020" }] : [],
  );
}

/** The columns to blame for an event: at most three, each with at least half of the largest share. */
const mainColumns = ({ columns }) => columns.slice(0, 3).filter((one) => one.share >= columns[0].share / 2).map((one) => one.name);

/** Columns with their mean share of the scores of some readings, largest first. */
function blame(found) {
  const sums = {};
  for (const { contributions } of found)
    for (const [name, share] of Object.entries(contributions ?? {})) sums[name] = (sums[name] ?? 0) + Math.max(share, 0);
  const all = Object.values(sums).reduce((a, b) => a + b, 0) || 1;
  return Object.entries(sums).map(([name, sum]) => [name, sum / all]).sort((a, b) => b[1] - a[1]);
}
