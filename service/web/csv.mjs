// CSV as people have it: any separator, lines above the header, a row of units, decimal commas, and times of day in a column of their own.
const SEPARATORS = [",", ";", "\t"];
const SAMPLE = 2 ** 16;
const MOST_ABOVE = 50;
const NUMBER = { ".": /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i, ",": /^[+-]?(\d{1,3}(\.\d{3})+|\d*)(,\d+)?$/ };
const DAY_FIRST = /^(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T,]+(\d{1,2}:\d{2}(:\d{2})?([.,]\d+)?))?$/;
const CLOCK = /^\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?$/;
const DAY = /^(\d{4}-\d{2}-\d{2}|\d{1,2}\.\d{1,2}\.\d{4})$/;

/**
 * `{columns, rows, decimal, first}`: rows are lists of texts, `decimal` is the mark in numbers, and `first` the row of the
 * file that `rows` begins with. Throws an Error that says what is wrong.
 */
export function parseCsv(text) {
  const content = text.replace(/^\ufeff/, "");
  const { separator, at } = findLayout(content);
  const [header = [], ...rest] = splitCsv(content, separator).slice(at);
  if (header.length < 1 || !rest.length) throw new Error("Expected a CSV with a header and at least one row.");
  const short = rest.findIndex((row) => row.length !== header.length);
  if (short >= 0) throw new Error(`Row ${at + short + 2}: expected ${header.length} columns as in the header, got ${rest[short].length}.`);
  const decimal = separator !== "," && rest.slice(0, 200).some((row) => row.some((cell) => cell.includes(",") && NUMBER[","].test(cell.trim()))) ? "," : ".";
  const units = hasUnits(rest, decimal) ? 1 : 0;
  return { columns: header.map((name) => name.trim()), rows: rest.slice(units), decimal, first: at + units + 2 };
}

/** The separator and the header's row that give the most columns, in all rows alike; else those of the first line. */
function findLayout(content) {
  const sample = content.length > SAMPLE ? content.slice(0, content.lastIndexOf("\n", SAMPLE) + 1) : content;
  const found = SEPARATORS.map((separator) => {
    const rows = splitCsv(sample, separator);
    const at = headerAt(rows);
    const width = rows.length > at + 1 && rows.slice(at).every((row) => row.length === rows[at].length) ? rows[at].length : 0;
    return { separator, at, width };
  });
  const best = found.reduce((one, other) => (other.width > one.width ? other : one));
  if (best.width > 1) return best;
  const line = content.slice(0, content.search(/\r?\n|$/));
  return { separator: SEPARATORS.reduce((one, other) => (line.split(other).length > line.split(one).length ? other : one)), at: 0 };
}

/** The first row that is as long as all below it and longer than all above it. */
function headerAt(rows) {
  const fits = ({ length }, at) => length > 1 && rows.slice(at).every((row) => row.length === length) && rows.slice(0, at).every((row) => row.length < length);
  return Math.max(rows.slice(0, MOST_ABOVE).findIndex(fits), 0);
}

/** Whether the first row has no number, and some text, where all rows below have numbers. */
function hasUnits([first, ...others], decimal) {
  const numeric = first.map((_, at) => at).filter((at) => isNumeric(others, at, decimal));
  return numeric.some((at) => first[at].trim()) && numeric.every((at) => !toNumber(first[at], decimal));
}

function isNumeric(rows, at, decimal) {
  const cells = rows.slice(0, 200).map((row) => row[at].trim()).filter(Boolean);
  return cells.length > 0 && cells.every((cell) => toNumber(cell, decimal) !== null);
}

/** A cell as a number; null where it is none. */
export function toNumber(cell, decimal) {
  const text = cell.trim();
  if (!/\d/.test(text) || !NUMBER[decimal].test(text)) return null;
  return Number(decimal === "," ? text.replaceAll(".", "").replace(",", ".") : text);
}

/** The columns whose values all look like numbers, and the first one that looks like a time. */
export function guessRoles({ columns, rows, decimal }) {
  const values = (at) => rows.slice(0, 200).map((row) => row[at].trim()).filter(Boolean);
  const isNumber = (at) => isNumeric(rows, at, decimal);
  const looksLikeTime = (text) => DAY_FIRST.test(text) || !Number.isNaN(Date.parse(text));
  const isTime = (name, at) => (isNumber(at) ? /^(time|timestamp|date|ts)$/i.test(name) : values(at).length > 0 && values(at).every(looksLikeTime));
  const timestamp = columns.find(isTime) ?? null;
  return { timestamp, numbers: columns.filter((name, at) => name !== timestamp && isNumber(at)) };
}

/** The times of a column as the service takes them; a time of day in another column belongs to the day. */
export function readTimes({ columns, rows }, timestamp) {
  const at = columns.indexOf(timestamp);
  const all = (place, form) => rows.every((row) => form.test(row[place].trim()));
  const clock = all(at, DAY) ? columns.findIndex((_, place) => all(place, CLOCK)) : -1;
  return rows.map((row) => toIso(clock < 0 ? row[at].trim() : `${row[at].trim()} ${row[clock].trim().padStart(5, "0")}`));
}

function toIso(text) {
  const [, day, month, year, clock = "00:00:00"] = DAY_FIRST.exec(text) ?? [];
  if (!day) return text;
  const time = clock.replace(",", ".").replace(/^\d:/, "0$&");
  return `${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}T${time.length === 5 ? `${time}:00` : time}`;
}

function splitCsv(text, separator) {
  const rows = [];
  let [row, cell, isQuoted] = [[], "", false];
  for (let at = 0; at < text.length; at++) {
    const now = text[at];
    if (isQuoted) {
      if (now !== '"') cell += now;
      else if (text[at + 1] === '"') cell += text[++at];
      else isQuoted = false;
    } else if (now === '"' && !cell) isQuoted = true;
    else if (now === separator) [row, cell] = [[...row, cell], ""];
    else if (now === "\n") {
      row.push(cell.replace(/\r$/, ""));
      if (row.length > 1 || row[0]) rows.push(row);
      [row, cell] = [[], ""];
    } else cell += now;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows;
}
