// Files of rows as a person has them: CSV, JSONL, and what is neither.
import { parseCsv } from "./csv.mjs";

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
  return { columns, rows: records.map((record) => columns.map((name) => toText(record[name]))), decimal: ".", first: 1 };
}

/** Text in UTF-8, or a CSV of a European spreadsheet or logger. */
function decode(name, content, isPart = false) {
  const encodings = /\.(csv|tsv)$/i.test(name) ? ["utf-8", "windows-1252"] : ["utf-8"];
  for (const encoding of encodings) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(content, { stream: isPart });
      if (!text.includes("\0")) return text;
    } catch {
      // The next encoding, or the message below.
    }
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
