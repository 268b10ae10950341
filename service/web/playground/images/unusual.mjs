// Images that are unlike normal ones, with a map of where.
import { html, useState } from "../../html.mjs";
import { Field, Notice, Select, number, plain } from "../../parts/basics.mjs";
import { Picture, PicturesField, toBlob } from "../../parts/pictures.mjs";
import { RequestForm, requirePictures, useRequest } from "../form.mjs";

const DETECTORS = [
  ["padim", "padim: parts stand still, or are a texture"],
  ["patchcore", "patchcore: parts lie in other places, or turned"],
];

export default function UnusualImages({ models, files, take }) {
  const request = useRequest("v1/anomaly/score", models);
  const [normal, describe] = useState([]);
  const [detector, choose] = useState("padim");
  const [alpha, allow] = useState("0.05");
  const isEncoder = models.find((one) => one.id === request.model).task === "embedding";
  const { data } = request.state;
  function build() {
    const images = requirePictures(files, "Pictures to judge");
    const about = { alpha: Number(alpha), maps: true };
    return isEncoder ? { images, reference: requirePictures(normal, "Normal pictures", 3), detector, ...about } : { images, ...about };
  }
  return html`
    <${RequestForm} request=${request} action="Score" build=${build}>
      <div class="halves">
        ${isEncoder && html`<div>
          <${PicturesField} label="Drop normal pictures, such as good parts: 3 or more, better 20" files=${normal} onChange=${describe} />
        </div>`}
        <div><${PicturesField} label="Drop pictures to judge, or choose some" files=${files} onChange=${take} /></div>
      </div>
      <div class="fields">
        ${isEncoder && html`<${Field} label="Detector"><${Select} value=${detector} options=${DETECTORS} onChange=${choose} /><//>`}
        <${Field} label="Alarm rate" hint="The share of normal pictures that may be called unusual.">
          <input inputmode="decimal" value=${alpha} onInput=${(event) => allow(event.target.value)} />
        <//>
      </div>
    <//>
    ${data?.answer.warnings.map((warning) => html`<${Notice} kind="warn">${plain(warning)}<//>`)}
    ${data && html`<${Scores} files=${data.body.images} answer=${data.answer} key=${data.answer} />`}
  `;
}

function Scores({ files, answer }) {
  const [maps] = useState(() => answer.data.map((one) => one.anomaly_map && toBlob(one.anomaly_map)));
  return html`
    <${Heat} />
    <p>${answer.threshold === null ? "Yellow is the strangest place." : `Yellow is as strange as the threshold (score ${number(answer.threshold)}), red the strangest place.`}</p>
    <div class="pictures">
      ${answer.data.map((one) => html`
        <figure class="card">
          <${Picture} of=${files[one.index]} />
          ${maps[one.index] && html`<${Picture} of=${maps[one.index]} alt=${`Where ${files[one.index].name} is strange`} class="heat" />`}
          <figcaption>
            ${plain(files[one.index].name)}: ${one.is_anomaly ? html`<b class="bad-text">unusual</b>` : "normal"}<br />
            score ${number(one.score)}, p-value ${number(one.p_value)}
          </figcaption>
        </figure>
      `)}
    </div>
  `;
}

/** The colours of a map: its grey, from normal to the strangest place, becomes blue, yellow and red. */
const Heat = () => html`
  <svg class="hidden" aria-hidden="true">
    <filter id="heat" color-interpolation-filters="sRGB">
      <feComponentTransfer>
        <feFuncR type="table" tableValues="0.05 0.1 1 0.95 0.75" />
        <feFuncG type="table" tableValues="0.1 0.45 0.85 0.45 0" />
        <feFuncB type="table" tableValues="0.3 0.55 0.25 0.1 0.1" />
      </feComponentTransfer>
    </filter>
  </svg>
`;
