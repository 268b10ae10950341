// Live numbers: /metrics as it was at each look, and what happened between the first and the last.
import { get } from "./api.mjs";
import { signal } from "./html.mjs";

const KEPT_S = 300;
const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The looks of the last five minutes: `{at, series}`; `at` in seconds, series as `Map(name, [{labels, value}])`. */
export const looks = signal([]);

export async function look(aborted) {
  const series = parse(await get("metrics", { as: "text", signal: aborted }));
  const at = performance.now() / 1000;
  const before = looks.value.filter((one) => one.at > at - KEPT_S);
  const began = total({ series }, "process_start_time_seconds");
  // After a restart all counters begin again, so the looks before say nothing.
  const same = before.filter((one) => total(one, "process_start_time_seconds") === began);
  looks.value = [...same, { at, series }];
}

export function parse(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels, value] = line.startsWith("#") ? [] : (SAMPLE.exec(line) ?? []);
    if (!name) continue;
    if (!series.has(name)) series.set(name, []);
    series.get(name).push({ labels: labels ? readLabels(labels) : {}, value: Number(value) });
  }
  return series;
}

function readLabels(text) {
  const unescape = (value) => value.replace(/\\(.)/g, (_, found) => (found === "n" ? "\n" : found));
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, unescape(value)]));
}

/** The samples of a series at a look. */
export const samples = (one, name) => one?.series.get(name) ?? [];

/** The sum of a series' samples at a look, of those that `wanted` keeps. */
export const total = (one, name, wanted = () => true) =>
  samples(one, name).reduce((sum, { labels, value }) => (wanted(labels) ? sum + value : sum), 0);

/** How much a counter grew between two looks. */
export const growth = (first, last, name, wanted) => Math.max(total(last, name, wanted) - total(first, name, wanted), 0);

/** The quantile of a histogram's growth between two looks, within its buckets; NaN without any. */
export function quantile(first, last, name, level, wanted = () => true) {
  const counts = new Map();
  for (const [one, sign] of [[first, -1], [last, 1]])
    for (const { labels, value } of samples(one, `${name}_bucket`))
      if (wanted(labels)) counts.set(labels.le, (counts.get(labels.le) ?? 0) + sign * value);
  const bounds = [...counts].map(([le, seen]) => [le === "+Inf" ? Infinity : Number(le), seen]).sort((a, b) => a[0] - b[0]);
  const rank = level * (bounds.at(-1)?.[1] ?? 0);
  if (!rank) return NaN;
  let [low, below] = [0, 0];
  for (const [high, seen] of bounds) {
    if (seen >= rank) return high === Infinity ? low : low + ((high - low) * (rank - below)) / (seen - below);
    [low, below] = [high, seen];
  }
  return NaN;
}
