// A new job from a dropped file: columns first, then the data checks, then the job.
import { call, post } from "../api.mjs";
import { guessRoles } from "../csv.mjs";
import { html, useState } from "../html.mjs";
import { loadModels, readsImages, readsTexts } from "../models.mjs";
import { Button, Card, ErrorNotice, Field, Notice, Select, Table, bytes, plain, useAction, useLoad } from "../parts/basics.mjs";
import { Drop } from "../parts/drop.mjs";
import { Findings } from "../parts/findings.mjs";
import { go } from "../route.mjs";
import { peek } from "../table.mjs";
import { KINDS, guessColumns, guessKind, isArchive, supervised } from "./kinds.mjs";

const SHOWN_ROWS = 4;

export function NewJob() {
  const [found, take] = useAction(async (file) => ({ file, table: await peek(file) }));
  return html`
    <${Card} title="Start a job">
      <${Drop} label="Drop a file of examples, or choose one: CSV, JSONL, Parquet, or a ZIP of images" onFiles=${([file]) => take(file)} />
      <${ErrorNotice} error=${found.error} />
      ${found.data && html`<${Plan} key=${found.data.file} ...${found.data} />`}
    <//>
  `;
}

function Plan({ file, table }) {
  const models = useLoad(loadModels);
  const columns = table?.columns ?? [];
  const roles = table ? guessRoles(table) : { timestamp: null, numbers: [] };
  const [kind, choose] = useState(isArchive(file) ? "images" : table ? guessKind(columns, roles) : "classification");
  const [mapping, map] = useState(() => guessColumns(kind, columns));
  const [timestamp, setTimestamp] = useState(roles.timestamp ?? "");
  const [group, setGroup] = useState("");
  const [base, setBase] = useState(null);
  const [suffix, name] = useState(file.name.replace(/\.\w+$/, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 64));
  const [horizon, reach] = useState("24");
  const [settings, configure] = useState("{}");
  const [stage, report] = useState("");
  const [sent, progress] = useState(null);
  const { sensors, images = false, fields = [] } = KINDS[kind];
  const kinds = Object.entries(KINDS).filter(([, one]) => Boolean(one.images) === isArchive(file));
  const bases = (models.data ?? []).filter(isOf(images)).filter((one) => one.task === "embedding" || (kind === "rerank" && one.task === "rerank")).map((one) => one.id);
  const model = sensors ? "sensors" : (base ?? bases[0]);

  function body(uploaded) {
    const hyperparameters = { ...(kind === "forecast" ? { horizon: Number(horizon) } : {}), ...readSettings(settings) };
    return {
      model,
      training_file: uploaded.id,
      ...(suffix ? { suffix } : {}),
      method: { type: "supervised", supervised: supervised(kind, mapping, { timestamp, group, hyperparameters }) },
    };
  }
  const [checked, check] = useAction(async () => {
    readSettings(settings);
    report(`Uploading ${bytes(file.size)} …`);
    const form = new FormData();
    form.set("purpose", "fine-tune");
    form.set("file", file);
    progress(0);
    const uploaded = await call("POST", "v1/files", { form, onProgress: progress }).finally(() => (report(""), progress(null)));
    report("Checking …");
    const found = await checkFile(uploaded, body(uploaded).method.supervised).finally(() => report(""));
    if (found.status === "ok") await start(uploaded);
    return { uploaded, report: found };
  });
  const [started, start] = useAction(async (uploaded) => {
    const job = await post("v1/fine_tuning/jobs", body(uploaded), { headers: { "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) } });
    go("jobs", job.id);
  });

  return html`
    ${table ? html`<${Sample} table=${table} />` : html`<${Notice}>${isArchive(file) ? "Images are labelled by the folder that they lie in." : "The page cannot read Parquet. The columns are checked by the service."}<//>`}
    <form onSubmit=${(event) => (event.preventDefault(), check())}>
      <div class="fields">
        <${Field} label="What for"><${Select} value=${kind} options=${kinds.map(([one, { title }]) => [one, title])}
          onChange=${(chosen) => (choose(chosen), map(guessColumns(chosen, columns)))} /><//>
        ${!sensors && bases.length > 0 && html`<${Field} label="Begin with"><${Select} value=${model} options=${bases} onChange=${setBase} /><//>`}
        ${table && fields.map((field) => html`<${Field} label=${`Column of ${field}`}><${Select} value=${mapping[field]} options=${columns}
          onChange=${(column) => map({ ...mapping, [field]: column })} /><//>`)}
        ${sensors && table && html`<${Field} label="Column of time"><${Select} value=${timestamp} options=${[["", "none"], ...columns]} onChange=${setTimestamp} /><//>
          <${Field} label="Column that tells machines apart"><${Select} value=${group} options=${[["", "none"], ...columns]} onChange=${setGroup} /><//>`}
        ${kind === "forecast" && html`<${Field} label="Steps to forecast"><input type="number" min="1" required value=${horizon} onInput=${(event) => reach(event.target.value)} /><//>`}
        <${Field} label="Name" hint="The last part of the new model's name."><input value=${suffix} pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*" maxlength="64"
          onInput=${(event) => name(event.target.value)} /><//>
      </div>
      <details>
        <summary>More settings</summary>
        <${Field} label="Hyperparameters" hint="A JSON object, like {&quot;mode&quot;: &quot;frozen&quot;}."><textarea class="mono" value=${settings} onInput=${(event) => configure(event.target.value)} /><//>
      </details>
      <${Button} type="submit" disabled=${checked.isBusy || started.isBusy || !model}>${stage || "Check the file and start"}<//>
      ${sent !== null && html`<progress value=${sent} max="1" aria-label=${`Uploaded of ${bytes(file.size)}`} />`}
    </form>
    <${ErrorNotice} error=${checked.error ?? started.error ?? models.error} />
    ${checked.data && html`<${Checked} ...${checked.data} onStart=${() => start(checked.data.uploaded)} isBusy=${started.isBusy} />`}
  `;
}

/** Whether a job on images, or on texts, can begin with what a model reads: models of both train nothing. */
const isOf = (images) => (model) => readsImages(model) === images && readsTexts(model) !== images;

function readSettings(text) {
  try {
    const found = JSON.parse(text);
    if (found && typeof found === "object" && !Array.isArray(found)) return found;
  } catch {
    // Said below, as for JSON of another kind.
  }
  throw new Error('Hyperparameters: expected a JSON object, like {"mode": "frozen"}.');
}

/** The data checks. A file that is too large for them is checked by its job. */
async function checkFile(uploaded, method) {
  try {
    return await post(`v1/files/${uploaded.id}/check`, method);
  } catch (error) {
    if (error.param === "file_id" && error.status === 422) return { status: "ok", rungs: [] };
    throw error;
  }
}

function Checked({ report, onStart, isBusy }) {
  return html`
    <${Findings} report=${report} />
    ${report.status === "fail"
      ? html`<p>A job would fail on this file. Mend the rows or choose other columns, and check again.</p>`
      : report.status !== "ok" && html`<${Button} onClick=${onStart} disabled=${isBusy}>Start all the same<//>`}
  `;
}

/** Names that also occur below: a file without a header loses its first row to the names. */
const repeatedNames = ({ columns, rows }) => columns.filter((name, at) => name && rows.some((row) => row[at]?.trim() === name));

function Sample({ table }) {
  const repeated = repeatedNames(table);
  const cells = table.columns.map((name, at) => [plain(name), (row) => plain(String(row[at] ?? "").slice(0, 120))]);
  return html`
    ${repeated.length > 0 && html`<${Notice} kind="warn">The first line looks like a row, not like names of columns: “${plain(repeated[0].slice(0, 60))}” occurs below it, too. Write a line of names above it, or this row is lost.<//>`}
    <p class="faint">${table.columns.length} columns. The first rows:</p>
    <${Table} label="The first rows of the file" columns=${cells} rows=${table.rows.slice(0, SHOWN_ROWS)} />`;
}
