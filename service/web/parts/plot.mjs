// A plot over time by uPlot, which is loaded when the first plot is shown.
import { html, useEffect, useRef, useState } from "../html.mjs";
import { ErrorNotice } from "./basics.mjs";

let loaded;
const load = () => (loaded ??= import("../vendor/uplot.mjs").then(withStyle));

function withStyle(module) {
  const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "console/vendor/uplot.css" });
  document.head.append(sheet);
  return module.default;
}

export const COLOURS = ["#1f8a94", "#c2571a", "#7a5bd0", "#4f8a10", "#c23b7a", "#8a6d00"];

/**
 * Lines `{label, values, dashes?, width?, colour?}` over `x`, which are seconds where `isTime`.
 * `bands` are pairs of series numbers (from 1) with the space between them filled; `points` marks values alone.
 */
export function Plot({ label, x, lines, bands = [], isTime = false, height = 220 }) {
  const place = useRef(null);
  const [error, fail] = useState(null);
  useEffect(() => {
    let [plot, watch, isGone] = [null, null, false];
    const box = place.current;
    load().then((UPlot) => {
      if (isGone) return;
      plot = new UPlot(options(box.clientWidth, height, lines, bands, isTime), [x, ...lines.map((line) => line.values)], box);
      watch = new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height }));
      watch.observe(box);
    }, () => fail({ message: "The plot could not be loaded. Reload the page once the service is back." }));
    return () => {
      isGone = true;
      watch?.disconnect();
      plot?.destroy();
    };
  }, [x, lines]);
  return html`<${ErrorNotice} error=${error} /><div ref=${place} role="img" aria-label=${label}></div>`;
}

function options(width, height, lines, bands, isTime) {
  const style = getComputedStyle(document.body);
  const axis = { stroke: style.color, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884", width: 1 } };
  return {
    width,
    height,
    scales: { x: { time: isTime } },
    axes: [axis, { ...axis, size: 60 }],
    series: [
      {},
      ...lines.map((line, at) => ({
        label: line.label,
        stroke: line.isPoints ? undefined : (line.colour ?? COLOURS[at % COLOURS.length]),
        width: line.isPoints ? 0 : (line.width ?? 1.5),
        dash: line.dashes,
        points: line.isPoints ? { show: true, size: 7, fill: line.colour, stroke: line.colour } : { show: false },
      })),
    ],
    bands: bands.map((series) => ({ series, fill: "#1f8a9433" })),
  };
}
