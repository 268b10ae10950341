// Which labels a classifier takes for which: the worst pairs with examples, and the matrix folded.
import { html } from "../html.mjs";
import { plain } from "../parts/basics.mjs";
import { Matrix } from "../parts/matrix.mjs";
import { DrawnPicture } from "../parts/pictures.mjs";

export function Confusion({ confusion }) {
  const { labels, counts, left_out: leftOut, pairs } = confusion;
  return html`
    <h3>What is taken for what</h3>
    ${!pairs.length && html`<p>No held-out row was taken for another label.</p>`}
    ${pairs.map((pair) => html`<${Pair} ...${pair} />`)}
    <details>
      <summary>Confusion matrix</summary>
      <p>Held-out rows of each label by the label that was predicted.${leftOut > 0 && ` These ${labels.length} labels were confused most; ${leftOut} more are left out.`}</p>
      <${Matrix} label="Confusion matrix" corner="Label" names=${labels.map(plain)} values=${counts}
        share=${(count, row) => count / Math.max(...row, 1)} show=${(count) => count || ""} />
    </details>
  `;
}

function Pair({ label, taken_for: taken, rows, of, examples }) {
  return html`
    <details>
      <summary>“${plain(label)}” was taken for “${plain(taken)}” in ${rows} of its ${of} held-out rows.</summary>
      <ul class="plain">${examples.map((one) => html`<li><small>Row ${one.line}</small> ${plain(one.text)}${one.picture && html`<br /><${DrawnPicture} uri=${one.picture} alt=${one.text} />`}</li>`)}</ul>
    </details>
  `;
}
