// Labels with their scores as bars.
import { html } from "../html.mjs";
import { percent, plain } from "./basics.mjs";

export const Bars = ({ labels }) => html`
  <div class="bars">
    ${labels.map(
      ({ label, score }) => html`<span>${plain(label)}</span><meter value=${score} aria-label=${plain(label)}></meter><span class="number">${percent(score)}</span>`,
    )}
  </div>
`;
