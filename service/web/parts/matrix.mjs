// A square table of numbers, shaded by their size.
import { html } from "../html.mjs";

/** `values` [n][n] with a name for each row; `share(value)` is how dark a cell is, 0 to 1, and `show(value)` its text. */
export function Matrix({ label, corner, names, columns = names, values, share, show }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table class="matrix">
        <thead><tr><th scope="col">${corner}</th>${columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>
          ${values.map((row, at) => html`
            <tr><th scope="row">${names[at]}</th>${row.map((value) => html`<td style=${shade(share(value, row))}>${show(value)}</td>`)}</tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}

const shade = (share) => ({ background: `rgb(31 138 148 / ${Math.round(55 * Math.max(share, 0))}%)` });
