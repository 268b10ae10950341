// Texts as vectors: how similar each two are, and a map of all.
import { html, useState } from "../html.mjs";
import { Card, plain } from "../parts/basics.mjs";
import { Matrix } from "../parts/matrix.mjs";
import { RequestForm, Texts, requireTexts, useRequest } from "./form.mjs";
import { cosines, project } from "./vectors.mjs";

const EXAMPLE = "Where is my card?\nMy card has not arrived.\nI want my money back.\nHow do I get a refund?\nThe weather is lovely today.";
const MOST_TEXTS = 500;
const MOST_IN_MATRIX = 24;

export default function Embed({ models }) {
  const request = useRequest("v1/embeddings", models.filter((one) => one.task === "embedding"));
  const [text, write] = useState(EXAMPLE);
  const { data } = request.state;
  return html`
    <${RequestForm} request=${request} action="Embed and compare" missing="No encoder is in service. Start Sonde with --model and an encoder."
      build=${() => ({ input: requireTexts(text, "Texts", 1, MOST_TEXTS) })}>
      <${Texts} label="Texts" hint=${`One text a line, at most ${MOST_TEXTS}.`} value=${text} onInput=${write} />
    <//>
    ${data && html`<${Vectors} texts=${data.body.input} answer=${data.answer} key=${data.answer} />`}
  `;
}

function Vectors({ texts, answer }) {
  const [{ matrix, points }] = useState(() => {
    const vectors = answer.data.map((one) => one.embedding);
    const similar = cosines(vectors);
    return { matrix: similar, points: project(similar) };
  });
  const note = `${texts.length} vectors of ${answer.data[0].embedding.length} dimensions, ${answer.usage.total_tokens} tokens.`;
  return html`
    <p>${note}</p>
    <div class="halves">
      ${texts.length > 1 && html`<${Card} title="Similarity"><${Similarity} texts=${texts} matrix=${matrix} /><//>`}
      ${texts.length > 2 && html`<${Card} title="Map"><${TextMap} texts=${texts} points=${points} /><//>`}
    </div>
  `;
}

function Similarity({ texts, matrix }) {
  const shown = texts.slice(0, MOST_IN_MATRIX);
  return html`
    ${texts.length > shown.length && html`<p class="faint">The first ${shown.length} texts.</p>`}
    <${Matrix} label="Similarity of each two texts" corner="Text" names=${shown.map((text, at) => `${at + 1}. ${plain(text.slice(0, 28))}`)}
      columns=${shown.map((_, at) => at + 1)} values=${shown.map((_, at) => matrix[at].slice(0, shown.length))}
      share=${(value) => value} show=${(value) => value.toFixed(2)} />
  `;
}

function TextMap({ texts, points }) {
  const isLabelled = texts.length <= 40;
  return html`
    <svg class="map" viewBox="0 0 400 300" role="img" aria-label=${`A map of ${texts.length} texts: similar ones are close`}>
      ${points.map(([x, y], at) => {
        const [left, top] = [30 + 340 * x, 20 + 260 * y];
        return html`
          <circle cx=${left} cy=${top} r=${isLabelled ? 5 : 3}><title>${plain(texts[at])}</title></circle>
          ${isLabelled && html`<text x=${left + (x > 0.6 ? -8 : 8)} y=${top + 4} text-anchor=${x > 0.6 ? "end" : "start"}>${plain(texts[at].slice(0, 24))}</text>`}
        `;
      })}
    </svg>
    <small>The two main directions of the similarities. Texts that are close here are alike; the reverse need not hold.</small>
  `;
}
