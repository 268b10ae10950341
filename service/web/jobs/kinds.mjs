// Kinds of jobs, as a person chooses among them: what each reads from a file.

/** `fields` are columns of texts; sensor kinds read a `timestamp` and numbers, kinds of `images` an archive. `example` shows the header of a file. */
export const KINDS = {
  classification: { title: "Classify texts", task: "classification", fields: ["text", "label"] },
  anomaly: { title: "Find unusual texts", task: "anomaly", fields: ["text"] },
  images: { title: "Classify images", task: "classification", fields: [], images: true },
  defects: { title: "Find defects in images", task: "anomaly", fields: [], images: true },
  embedding: { title: "Tune an encoder on pairs", task: "embedding", fields: ["anchor", "positive"] },
  rerank: { title: "Rank documents", task: "rerank", fields: ["query", "document", "label"] },
  series: { title: "Watch sensors over time", task: "anomaly", sensors: { kind: "series" } },
  records: { title: "Watch parts or batches, without an order", task: "anomaly", sensors: { kind: "records" } },
  forecast: { title: "Forecast a series", task: "forecast", sensors: {} },
};

const NAMES = {
  text: ["text", "utterance", "sentence", "message", "question", "content", "input"],
  label: ["label", "intent", "class", "category", "target", "correct_label"],
  anchor: ["anchor", "query", "question"],
  positive: ["positive", "answer", "document", "passage"],
  query: ["query", "question"],
  document: ["document", "passage", "text"],
};

/** The kind that fits the columns of a file best, by their names and what is in them. */
export function guessKind(columns, { timestamp, numbers }) {
  const lower = columns.map((name) => name.toLowerCase());
  if (timestamp ? numbers.length && 2 * numbers.length >= columns.length - 1 : numbers.length > 1 && numbers.length >= columns.length - 2) return "series";
  const texts = ["classification", "embedding", "rerank"];
  return texts.find((kind) => KINDS[kind].fields.every((field) => lower.includes(field))) ?? (columns.length > 1 ? "classification" : "anomaly");
}

/** Whether a file is an archive of images. */
export const isArchive = (file) => /\.zip$/i.test(file.name);

/** For each field of a kind the column that is probably meant. */
export function guessColumns(kind, columns) {
  const fields = KINDS[kind].fields ?? [];
  const byName = (field) => NAMES[field]?.map((name) => columns.find((one) => one.toLowerCase() === name)).find(Boolean);
  return Object.fromEntries(fields.map((field, at) => [field, byName(field) ?? columns[at] ?? ""]));
}

/** `method.supervised` of a job. Columns that have the expected name are not mapped. */
export function supervised(kind, mapping, { timestamp, group, hyperparameters = {} }) {
  const { task, fields, sensors } = KINDS[kind];
  if (sensors) return { task, hyperparameters: { ...sensors, ...(timestamp && { timestamp }), ...(group && { group }), ...hyperparameters } };
  const columns = Object.fromEntries(fields.map((field) => [field, mapping[field]]).filter(([field, column]) => column && column !== field));
  return { task, hyperparameters, ...(Object.keys(columns).length ? { columns } : {}) };
}
