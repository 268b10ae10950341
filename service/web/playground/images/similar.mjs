// Images by their cosines to one of them.
import { html, useState } from "../../html.mjs";
import { Card, Field, Select, plain } from "../../parts/basics.mjs";
import { Matrix } from "../../parts/matrix.mjs";
import { Picture, PicturesField } from "../../parts/pictures.mjs";
import { RequestForm, requirePictures, useRequest } from "../form.mjs";
import { cosines } from "../vectors.mjs";

const MOST_IN_MATRIX = 24;

export default function SimilarImages({ models, files, take }) {
  const request = useRequest("v1/embeddings", models);
  const { data } = request.state;
  return html`
    <${RequestForm} request=${request} action="Compare" build=${() => ({ images: requirePictures(files, "Pictures", 2) })}>
      <${PicturesField} label="Drop two pictures or more, or choose them" files=${files} onChange=${take} />
    <//>
    ${data && html`<${Compared} files=${data.body.images} answer=${data.answer} key=${data.answer} />`}
  `;
}

function Compared({ files, answer }) {
  const [matrix] = useState(() => cosines(answer.data.map((one) => one.embedding)));
  const [chosen, choose] = useState("0");
  const from = matrix[chosen];
  const order = files.map((_, at) => at).sort((a, b) => from[b] - from[a]);
  const shown = files.slice(0, MOST_IN_MATRIX);
  const names = files.map((file, at) => `${at + 1}. ${plain(file.name.slice(0, 28))}`);
  return html`
    <p>${files.length} vectors of ${answer.data[0].embedding.length} dimensions.</p>
    <${Card} title="Most alike first">
      <${Field} label="Compare with"><${Select} value=${chosen} options=${names.map((name, at) => [String(at), name])} onChange=${choose} /><//>
      <div class="pictures">
        ${order.map((at) => html`
          <figure key=${at}><${Picture} of=${files[at]} /><figcaption>${names[at]}<br /><b>cosine ${from[at].toFixed(3)}</b></figcaption></figure>
        `)}
      </div>
    <//>
    <${Card} title="Similarity">
      ${files.length > shown.length && html`<p class="faint">The first ${shown.length} pictures.</p>`}
      <${Matrix} label="Similarity of each two pictures" corner="Picture" names=${names.slice(0, shown.length)} columns=${shown.map((_, at) => at + 1)}
        values=${shown.map((_, at) => matrix[at].slice(0, shown.length))} share=${(value) => value} show=${(value) => value.toFixed(2)} />
    <//>
  `;
}
