// Labels for images: a classifier's own, or those that the person writes.
import { html, useState } from "../../html.mjs";
import { readsTexts } from "../../models.mjs";
import { Bars } from "../../parts/bars.mjs";
import { Picture, PicturesField } from "../../parts/pictures.mjs";
import { readLabels } from "../classify.mjs";
import { RequestForm, Texts, requirePictures, useRequest } from "../form.mjs";

export default function ClassifyImages({ models, files, take }) {
  const request = useRequest("v1/classify", [...models].sort((a, b) => a.task.localeCompare(b.task)));
  const [labels, name] = useState("cat\ndog\ncar");
  const model = models.find((one) => one.id === request.model);
  const isEncoder = model.task === "embedding" && readsTexts(model);
  const { data } = request.state;
  function build() {
    const images = requirePictures(files, "Pictures");
    return isEncoder ? { images, labels: readLabels(labels) } : { images };
  }
  return html`
    <${RequestForm} request=${request} action="Classify" build=${build}>
      <${PicturesField} label="Drop pictures, or choose some" files=${files} onChange=${take} />
      ${isEncoder && html`<${Texts} label="Labels" hint="One label a line. “cat: a photo of a sleeping cat” describes it." value=${labels} onInput=${name} />`}
    <//>
    ${data && html`
      <div class="pictures">
        ${data.answer.data.map((one) => html`
          <figure class="card"><${Picture} of=${data.body.images[one.index]} /><figcaption><${Bars} labels=${one.labels.slice(0, 5)} /></figcaption></figure>
        `)}
      </div>
    `}
  `;
}
