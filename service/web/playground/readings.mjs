// A table of readings, pasted or dropped, with the columns that a sensor model reads.
import { guessRoles, parseCsv, readTimes, toNumber } from "../csv.mjs";
import { html, useState } from "../html.mjs";
import { ErrorNotice, Field } from "../parts/basics.mjs";
import { Drop } from "../parts/drop.mjs";
import { readText } from "../table.mjs";

// What one request may carry, by the service's defaults.
const MOST_BYTES = 8 * 2 ** 20;

export function useReadings() {
  const [text, write] = useState("");
  const [error, fail] = useState(null);
  const take = (file) => readText(file, MOST_BYTES).then((found) => (fail(null), write(found)), fail);
  return { text, write, take, error };
}

export function ReadingsField({ readings, columns }) {
  const shown = readings.text.length > 20_000 ? `${readings.text.slice(0, 20_000)}` : readings.text;
  const isCut = shown !== readings.text;
  return html`
    <${Drop} label="Drop a CSV of readings, or choose one" accept=".csv,.tsv,text/csv" onFiles=${([file]) => readings.take(file)} />
    <${ErrorNotice} error=${readings.error} />
    <${Field} label="Readings" hint=${`CSV with a header and the columns ${columns.join(", ")}, and a time if there is one.${isCut ? " The box shows the beginning." : ""}`}>
      <textarea class="mono" value=${shown} readonly=${isCut} onInput=${(event) => readings.write(event.target.value)} />
    <//>
  `;
}

/** `{rows, timestamps}` of a model's columns, numbers or null. Throws an Error that says what is missing. */
export function readRows(text, columns) {
  const table = parseCsv(text);
  const missing = columns.filter((name) => !table.columns.includes(name));
  if (missing.length) throw new Error(`The model reads ${columns.join(", ")}. The header lacks ${missing.join(", ")}.`);
  const places = columns.map((name) => table.columns.indexOf(name));
  const rows = table.rows.map((row, at) => places.map((place) => toReading(row[place], at + table.first, table.columns[place], table.decimal)));
  const { timestamp } = guessRoles(table);
  return { rows, timestamps: timestamp && readTimes(table, timestamp) };
}

function toReading(cell, line, column, decimal) {
  if (!cell.trim()) return null;
  const value = toNumber(cell, decimal);
  if (value === null) throw new Error(`Row ${line}, ${column}: expected a number, got “${cell.slice(0, 40)}”. Leave the cell empty where there is no reading.`);
  return value;
}

/** Where each row goes in a plot: seconds of its time, or its number. */
export function places(timestamps, count) {
  const seconds = timestamps?.map((stamp) => Date.parse(stamp) / 1000);
  return seconds && seconds.every(Number.isFinite) ? { x: seconds, isTime: true } : { x: Array.from({ length: count }, (_, at) => at + 1), isTime: false };
}
