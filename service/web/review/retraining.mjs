// A job on what a model learnt from before, and on all feedback that came since.
import { call, get, part, post } from "../api.mjs";
import { parseCsv } from "../csv.mjs";
import { readsImages } from "../models.mjs";

const MOST_BYTES = 64 * 2 ** 20;

/** Start it for a model; the new job, with `note` where the rows of before could not be added. */
export async function trainOnFeedback(model) {
  if (readsImages(await get(`v1/models/${part(model)}`))) return { job: await onFeedbackAlone(model), note: "on feedback alone: the page does not add images to a file" };
  const feedback = (await allFeedback(model)).filter((one) => one.text !== null);
  if (!feedback.length) throw new Error(`There is no feedback on ${model} yet. Choose labels first.`);
  const before = await jobOf(model);
  if (!before) return { job: await onFeedbackAlone(model), note: "on feedback alone: the job that trained the version in service is not there for this key" };
  const rows = [...(await rowsOf(before)), ...feedback.map((one) => ({ text: one.text, label: one.correct_label }))];
  const form = new FormData();
  form.set("purpose", "fine-tune");
  form.set("file", new File(rows.map((row) => `${JSON.stringify(row)}\n`), "with-feedback.jsonl"));
  const uploaded = await call("POST", "v1/files", { form });
  const { task, hyperparameters } = before.method.supervised;
  return { job: await start({ model: before.model, training_file: uploaded.id, ...suffixOf(model), method: { type: "supervised", supervised: { task, hyperparameters } } }) };
}

const onFeedbackAlone = async (model) => start({ model: await baseOf(model), training_file: `feedback:${model}`, ...suffixOf(model) });
const start = (body) => post("v1/fine_tuning/jobs", body);
const suffixOf = (model) => (model.startsWith("ft:") ? { suffix: model.split(":")[3] } : {});
const baseOf = async (model) => (model.startsWith("ft:") ? (await get(`v1/models/${part(model)}`)).base : model);

async function allFeedback(model) {
  const found = [];
  let page;
  do {
    const after = found.length ? `&after=${found.at(-1).id}` : "";
    page = await get(`v1/feedback?limit=10000&model=${encodeURIComponent(model)}${after}`);
    found.push(...page.data);
  } while (page.has_more);
  return found;
}

/** The job that trained the version in service; null for other models, and where this key does not see it. */
async function jobOf(model) {
  if (!model.startsWith("ft:")) return null;
  const { data } = await get(`v1/models/${part(model)}/versions`);
  const id = data.find((one) => one.in_service)?.job;
  if (!id) return null;
  return get(`v1/fine_tuning/jobs/${part(id)}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
}

/** The rows of text and label that a job trained on. Throws an Error where the page cannot read its file. */
async function rowsOf(job) {
  const { training_file: file, method } = job;
  if (file.startsWith("feedback:")) return [];
  const about = await get(`v1/files/${part(file)}`);
  if (about.bytes > MOST_BYTES || /\.parquet$/i.test(about.filename))
    throw new Error(`${about.filename} is Parquet or larger than ${MOST_BYTES / 2 ** 20} MiB: add the feedback to it with a program, from GET /v1/feedback.`);
  const text = await get(`v1/files/${part(file)}/content`, { as: "text" });
  const source = { text: "text", label: "label", ...method.supervised.columns };
  if (!/\.csv$/i.test(about.filename)) {
    const records = text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    return records.map((record) => (record.messages ? record : { text: record[source.text], label: record[source.label] }));
  }
  const { columns, rows } = parseCsv(text);
  const [from, to] = [columns.indexOf(source.text), columns.indexOf(source.label)];
  return rows.map((row) => ({ text: row[from], label: row[to] }));
}
