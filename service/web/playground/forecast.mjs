// The next steps of a series, with bands.
import { html, useState } from "../html.mjs";
import { Card, Field, Notice, Select, plain } from "../parts/basics.mjs";
import { COLOURS, Plot } from "../parts/plot.mjs";
import { RequestForm, useRequest } from "./form.mjs";
import { ReadingsField, places, readRows, useReadings } from "./readings.mjs";

const MISSING = "No forecaster is in service. Drop a CSV of a series under Jobs to train one.";

export default function Forecast({ models }) {
  const suitable = models.filter((one) => one.task === "forecast");
  const request = useRequest("v1/forecast", suitable);
  const readings = useReadings();
  const [horizon, reach] = useState("");
  const signature = suitable.find((one) => one.id === request.model)?.signature;
  const { data } = request.state;
  function build() {
    const { rows, timestamps } = readRows(readings.text, signature.inputs[0].columns);
    return { series: rows, ...(timestamps ? { timestamps } : {}), ...(horizon ? { horizon: Number(horizon) } : {}) };
  }
  return html`
    <${RequestForm} request=${request} action="Forecast" build=${build} missing=${MISSING}>
      <${ReadingsField} readings=${readings} columns=${signature?.inputs[0].columns ?? []} />
      <${Field} label="Steps" hint=${`Empty for the most: ${signature?.horizon}. The model needs the last ${signature?.window} rows.`}>
        <input inputmode="numeric" value=${horizon} onInput=${(event) => reach(event.target.value)} />
      <//>
    <//>
    ${data && html`<${Steps} data=${data} key=${data.answer} />`}
  `;
}

function Steps({ data: { body, answer } }) {
  const [column, choose] = useState(answer.columns[0]);
  const at = answer.columns.indexOf(column);
  const [drawn] = useState(() => answer.columns.map((_, place) => draw(body, answer, place)));
  return html`
    ${answer.warnings.map((warning) => html`<${Notice} kind="warn">${plain(warning)}<//>`)}
    <${Card} title="Forecast">
      ${answer.columns.length > 1 && html`<${Field} label="Column"><${Select} value=${column} options=${answer.columns} onChange=${choose} /><//>`}
      <${Plot} label=${`Forecast of ${plain(column)} with a band from 10 % to 90 %`} key=${column} ...${drawn[at]} bands=${[[4, 3]]} height=${260} />
    <//>
  `;
}

function draw(body, answer, at) {
  const past = body.series.slice(-4 * answer.mean.length).map((row) => row[at]);
  const stamps = body.timestamps && answer.timestamps && [...body.timestamps.slice(-past.length), ...answer.timestamps];
  const before = past.map(() => null);
  const after = answer.mean.map(() => null);
  const level = (name) => [...before, ...answer.quantiles[name].map((row) => row[at])];
  return {
    ...places(stamps, past.length + after.length),
    lines: [
      { label: "readings", values: [...past, ...after] },
      { label: "mean", values: [...before, ...answer.mean.map((row) => row[at])], colour: COLOURS[1] },
      { label: "10 %", values: level("0.1"), colour: COLOURS[0], width: 1, dashes: [4, 4] },
      { label: "90 %", values: level("0.9"), colour: COLOURS[0], width: 1, dashes: [4, 4] },
    ],
  };
}
