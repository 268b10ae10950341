// A small line without axes, for numbers that move.
import { html } from "../html.mjs";

export function Line({ points, label }) {
  if (points.length < 2) return html`<svg class="line" role="img" aria-label=${label} />`;
  const most = Math.max(...points) || 1;
  const path = points.map((value, at) => `${(100 * at) / (points.length - 1)},${38 - (34 * value) / most}`).join("L");
  return html`
    <svg class="line" viewBox="0 0 100 42" preserveAspectRatio="none" role="img" aria-label=${label}><path d=${`M${path}`} /></svg>
  `;
}
