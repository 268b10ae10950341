// Playground: every kind of call, on the models in service.
import { html } from "../html.mjs";
import { loadModels, readsImages, readsTexts } from "../models.mjs";
import { ErrorNotice, Loading, Tabs, useLoad } from "../parts/basics.mjs";
import Classify from "../playground/classify.mjs";
import Embed from "../playground/embed.mjs";
import Forecast from "../playground/forecast.mjs";
import Images from "../playground/images.mjs";
import Rerank from "../playground/rerank.mjs";
import Sensors from "../playground/sensors.mjs";
import Unusual from "../playground/unusual.mjs";
import { go, route } from "../route.mjs";

// Name: title, part, and the models that it chooses from.
const PARTS = {
  embed: ["Embed and compare", Embed, readsTexts],
  classify: ["Classify", Classify, readsTexts],
  unusual: ["Unusual texts", Unusual, readsTexts],
  images: ["Images", Images, readsImages],
  sensors: ["Sensors", Sensors, () => true],
  forecast: ["Forecast", Forecast, () => true],
  rerank: ["Rerank", Rerank, readsTexts],
};

export default function Playground() {
  const models = useLoad(loadModels);
  const [asked] = route.value.rest;
  const shown = Object.entries(PARTS).filter(([name]) => name !== "images" || models.data?.some(readsImages));
  const [name, [, Part, isFor]] = shown.find(([one]) => one === asked) ?? shown[0];
  return html`
    <h1>Playground</h1>
    <${Tabs} label="Tasks" items=${shown.map(([part, [title]]) => [part, title])} value=${name} onChange=${(part) => go("playground", part)} />
    <${ErrorNotice} error=${models.error} />
    ${models.data ? html`<${Part} models=${models.data.filter(isFor)} key=${name} />` : models.isLoading && html`<${Loading} />`}
  `;
}
