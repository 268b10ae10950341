// A table of events: since when, how long, how strange, and which columns are to blame.
import { html } from "../html.mjs";
import { PagedTable, count, number, plain } from "./basics.mjs";

const LOOKS = { high: "bad-text", medium: "warn-text" };

/** `rows` are `{start, end, readings, severity, pValue, columns}`; `end` is null for an open event. */
export function Events({ rows }) {
  const columns = [
    ["Start", (one) => plain(one.start)],
    ["End", (one) => (one.end === null ? html`<b>open</b>` : plain(one.end))],
    ["Readings", (one) => count(one.readings)],
    ["Severity", (one) => html`<span class=${LOOKS[one.severity]}>${plain(one.severity)}</span>`],
    ["p-value of the peak", (one) => number(one.pValue)],
    ["Columns to blame", (one) => plain(one.columns.join(", "))],
  ];
  return html`<${PagedTable} label="Events" rows=${rows} columns=${columns} numbers=${[2, 4]} empty="None."
    text=${(one) => `${one.start} ${one.severity} ${one.columns.join(" ")}`} />`;
}
