// Images: their labels, which are alike, and which are unlike normal ones.
import { html, useState } from "../html.mjs";
import { readsTexts } from "../models.mjs";
import { Field, Select } from "../parts/basics.mjs";
import ClassifyImages from "./images/classify.mjs";
import SimilarImages from "./images/similar.mjs";
import UnusualImages from "./images/unusual.mjs";

// Name: title, part, and whether a model of images can do it.
const WAYS = {
  classify: ["Classify", ClassifyImages, (model) => model.task === "classification" || (model.task === "embedding" && readsTexts(model))],
  similar: ["Find similar pictures", SimilarImages, (model) => model.task === "embedding"],
  unusual: ["Find unusual pictures, such as defects", UnusualImages, (model) => model.task === "embedding" || model.task === "anomaly"],
};

export default function Images({ models }) {
  const ways = Object.entries(WAYS).filter(([, [, , can]]) => models.some(can));
  const [chosen, choose] = useState(null);
  // The pictures stay when the person turns to another way.
  const [files, take] = useState([]);
  const [name, [, Way, can]] = ways.find(([one]) => one === chosen) ?? ways[0];
  return html`
    <${Field} label="What to do"><${Select} value=${name} options=${ways.map(([way, [title]]) => [way, title])} onChange=${choose} /><//>
    <${Way} models=${models.filter(can)} files=${files} take=${take} key=${name} />
  `;
}
