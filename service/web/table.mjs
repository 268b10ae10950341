// Files of rows as a person has them: CSV with any separator, JSONL, and what is neither.
const SEPARATORS = [",", ";", "\t"];

/** `{columns, rows}` of a CSV; rows are lists of texts. Throws an Error that says what is wrong. */
export function parseCsv(text) {
  const line = text.slice(0, text.search(/\r?\n|$/));
  const separator = SEPARATORS.reduce((best, one) => (line.split(one).length > line.split(best).length ? one : best));
  const [columns = [], ...rows] = splitCsv(text.replace(/^\ufeff/, ""), separator);
  if (columns.length < 1 || !rows.length) throw new Error("Expected a CSV with a header and at least one row.");
  const short = rows.findIndex((row) => row.length !== columns.length);
  if (short >= 0) throw new Error(`Row ${short + 2}: expected ${columns.length} columns as in the header, got ${rows[short].length}.`);
  return { columns: columns.map((name) => name.trim()), rows };
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

/** The text of a file of at most `limit` bytes. Throws an Error for a larger one, and for one that is not text. */
export async function readText(file, limit) {
  if (file.size > limit)
    throw new Error(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MiB; expected at most ${limit / 2 ** 20} MiB here. Drop a part of it.`);
  return decode(file.name, await file.arrayBuffer());
}

/** The columns of a file and its first rows, by its beginning alone; null for Parquet and ZIP, which a browser cannot read. */
export async function peek(file) {
  if (/\.(parquet|zip)$/i.test(file.name)) return null;
  const part = await file.slice(0, 2 ** 18).arrayBuffer();
  let text = decode(file.name, part, file.size > part.byteLength);
  if (file.size > part.byteLength) text = text.slice(0, text.lastIndexOf("\n") + 1);
  if (/\.(csv|tsv)$/i.test(file.name)) return parseCsv(text);
  const records = text.split("\n").filter((line) => line.trim()).slice(0, 200).map((line, at) => parseLine(line, at + 1));
  const columns = [...new Set(records.flatMap(Object.keys))];
  if (!columns.length) throw new Error(`${file.name} is empty. Expected a JSON object on each line.`);
  return { columns, rows: records.map((record) => columns.map((name) => toText(record[name]))) };
}

function decode(name, content, isPart = false) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(content, { stream: isPart });
    if (!text.includes("\0")) return text;
  } catch {
    // Said below, as for a text with NUL.
  }
  throw new Error(`${name} is not a text in UTF-8. Expected CSV, JSONL or Parquet.`);
}

function parseLine(line, at) {
  let record;
  try {
    record = JSON.parse(line);
  } catch {
    throw new Error(`Line ${at} is not JSON. Expected JSONL, or a name that ends with .csv.`);
  }
  if (record === null || typeof record !== "object" || Array.isArray(record)) throw new Error(`Line ${at}: expected a JSON object.`);
  return record;
}

const toText = (value) => (value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));

/** The columns whose values all look like numbers, and the first one that looks like a time. */
export function guessRoles({ columns, rows }) {
  const values = (at) => rows.slice(0, 200).map((row) => row[at]).filter((value) => value.trim());
  const isNumber = (at) => values(at).length > 0 && values(at).every((value) => Number.isFinite(Number(value)));
  const isTime = (name, at) => !isNumber(at) ? values(at).length > 0 && values(at).every((value) => !Number.isNaN(Date.parse(value))) : /^(time|timestamp|date|ts)$/i.test(name);
  const timestamp = columns.find(isTime) ?? null;
  return { timestamp, numbers: columns.filter((name, at) => name !== timestamp && isNumber(at)) };
}
