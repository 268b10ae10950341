// Texts as vectors: how similar each two are, and a map of all.
import { html, useState } from "../html.mjs";
import { Card, plain } from "../parts/basics.mjs";
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
      ${texts.length > 1 && html`<${Card} title="Similarity"><${Matrix} texts=${texts} matrix=${matrix} /><//>`}
      ${texts.length > 2 && html`<${Card} title="Map"><${TextMap} texts=${texts} points=${points} /><//>`}
    </div>
  `;
}

function Matrix({ texts, matrix }) {
  const shown = texts.slice(0, MOST_IN_MATRIX);
  return html`
    ${texts.length > shown.length && html`<p class="faint">The first ${shown.length} texts.</p>`}
    <div class="scroll" tabindex="0" role="region" aria-label="Similarity of each two texts">
      <table class="matrix">
        <thead><tr><th scope="col">Text</th>${shown.map((_, at) => html`<th scope="col">${at + 1}</th>`)}</tr></thead>
        <tbody>
          ${shown.map(
            (text, at) => html`
              <tr>
                <th scope="row" title=${text}>${at + 1}. ${plain(text.slice(0, 28))}</th>
                ${shown.map((_, other) => html`<td style=${shade(matrix[at][other])}>${matrix[at][other].toFixed(2)}</td>`)}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

const shade = (value) => ({ background: `rgb(31 138 148 / ${Math.round(55 * Math.max(value, 0))}%)` });

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
