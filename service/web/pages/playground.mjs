// Playground: every kind of call, on the models in service.
import { html } from "../html.mjs";
import { loadModels } from "../models.mjs";
import { ErrorNotice, Loading, Tabs, useLoad } from "../parts/basics.mjs";
import Classify from "../playground/classify.mjs";
import Embed from "../playground/embed.mjs";
import Forecast from "../playground/forecast.mjs";
import Rerank from "../playground/rerank.mjs";
import Sensors from "../playground/sensors.mjs";
import Unusual from "../playground/unusual.mjs";
import { go, route } from "../route.mjs";

const PARTS = {
  embed: ["Embed and compare", Embed],
  classify: ["Classify", Classify],
  unusual: ["Unusual texts", Unusual],
  sensors: ["Sensors", Sensors],
  forecast: ["Forecast", Forecast],
  rerank: ["Rerank", Rerank],
};

export default function Playground() {
  const models = useLoad(loadModels);
  const [name = "embed"] = route.value.rest;
  const [, Part] = PARTS[name] ?? PARTS.embed;
  return html`
    <h1>Playground</h1>
    <${Tabs} label="Tasks" items=${Object.entries(PARTS).map(([part, [title]]) => [part, title])} value=${name in PARTS ? name : "embed"}
      onChange=${(part) => go("playground", part)} />
    <${ErrorNotice} error=${models.error} />
    ${models.data ? html`<${Part} models=${models.data} key=${name} />` : models.isLoading && html`<${Loading} />`}
  `;
}
