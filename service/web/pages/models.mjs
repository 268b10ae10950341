// Models: versions of trained ones side by side, what serves, aliases, and the contract of each.
import { get, part, post, put, remove } from "../api.mjs";
import { html, useState } from "../html.mjs";
import { Button, Card, Confirm, ErrorNotice, Field, Loading, Notice, Table, number, plain, time, useAction, useLoad } from "../parts/basics.mjs";
import { link, route } from "../route.mjs";

const PAGE = 50;
const SHOWN_VERSIONS = 6;

export default function Models() {
  const name = route.value.rest.join("/");
  return name ? html`<${TrainedModel} name=${name} key=${name} />` : html`<h1>Models</h1><${Trained} /><${Aliases} />`;
}

function Trained() {
  const [before, turn] = useState([]);
  const after = before.at(-1);
  const names = useLoad((aborted) => get(`v1/trained_models?limit=${PAGE}${after ? `&after=${encodeURIComponent(after)}` : ""}`, { signal: aborted }), [after]);
  const rows = names.data?.data ?? [];
  const columns = [
    ["Trained model", (one) => html`<a href=${link("models", one.id)}>${plain(one.id)}</a>`],
    ["In service", (one) => (one.version === null ? "none" : `v${one.version}`)],
    ["Versions", (one) => one.versions.map((version) => `v${version}`).join(", ")],
  ];
  return html`
    <${Card} title="Trained models">
      <${ErrorNotice} error=${names.error} />
      ${names.data ? html`<${Table} label="Trained models" columns=${columns} rows=${rows} empty="None yet. Start a job to train one." />` : html`<${Loading} />`}
      <nav class="row" aria-label="Pages of trained models">
        ${before.length > 0 && html`<${Button} quiet onClick=${() => turn(before.slice(0, -1))}>Previous<//>`}
        ${names.data?.has_more && html`<${Button} quiet onClick=${() => turn([...before, rows.at(-1).id])}>Next<//>`}
      </nav>
      <p class="faint">Models of the settings are on the <a href="#/overview">Overview</a>.</p>
    <//>
  `;
}

function Aliases() {
  const aliases = useLoad((aborted) => get("v1/aliases", { signal: aborted }));
  const [form, write] = useState({ alias: "", target: "" });
  const [set, point] = useAction(async () => {
    await put(`v1/aliases/${part(form.alias)}`, { target: form.target });
    write({ alias: "", target: "" });
    aliases.reload();
  });
  const [removed, drop] = useAction(async (alias) => {
    await remove(`v1/aliases/${part(alias)}`);
    aliases.reload();
  });
  const columns = [
    ["Alias", (one) => plain(one.id)],
    ["Stands for", (one) => plain(one.target)],
    ["Change", (one) => html`<${Button} quiet onClick=${() => drop(one.id)}>Remove ${plain(one.id)}<//>`],
  ];
  const change = (name) => (event) => write({ ...form, [name]: event.target.value });
  return html`
    <${Card} title="Aliases">
      <${ErrorNotice} error=${aliases.error ?? set.error ?? removed.error} />
      <${Table} label="Aliases" columns=${columns} rows=${aliases.data?.data ?? []} />
      <form class="fields" onSubmit=${(event) => (event.preventDefault(), point())}>
        <${Field} label="Alias"><input required value=${form.alias} onInput=${change("alias")} /><//>
        <${Field} label="Stands for" hint="A trained model, or one version of it: ft:…:v2."><input required value=${form.target} onInput=${change("target")} /><//>
        <div class="field"><${Button} type="submit" disabled=${set.isBusy}>Set the alias<//></div>
      </form>
    <//>
  `;
}

function TrainedModel({ name }) {
  const path = `v1/models/${part(name)}`;
  const about = useLoad(async (aborted) => {
    const [versions, ledger, served] = await Promise.all([
      get(`${path}/versions`, { signal: aborted }),
      get(`${path}/ledger`, { signal: aborted }),
      get(path, { signal: aborted }).catch((error) => ([404, 503].includes(error.status) ? null : Promise.reject(error))),
    ]);
    return { versions: { ...versions, data: await withDecisions(versions.data, aborted) }, ledger, served };
  }, [name]);
  if (!about.data) return about.error ? html`<p><a href="#/models">All models</a></p><${ErrorNotice} error=${about.error} />` : html`<${Loading} />`;
  const { versions, ledger, served } = about.data;
  return html`
    <p><a href="#/models">All models</a></p>
    <h1>${plain(name)}</h1>
    <${ErrorNotice} error=${about.error} />
    <${Moves} path=${path} versions=${versions} onDone=${about.reload} />
    <${Metrics} versions=${versions.data} />
    ${served && html`<${Contract} model=${served} />`}
    <${History} entries=${ledger.data} />
  `;
}

/** The newest versions with what the gate decided and why, where their jobs are there for this key. */
function withDecisions(versions, aborted) {
  const decide = async (one, at) => {
    if (!one.job || at >= SHOWN_VERSIONS) return one;
    const job = await get(`v1/fine_tuning/jobs/${part(one.job)}`, { signal: aborted }).catch((error) => ([403, 404].includes(error.status) ? null : Promise.reject(error)));
    return { ...one, decision: job?.result && `${job.result.decision}: ${job.result.why}` };
  };
  return Promise.all(versions.map(decide));
}

/** The versions, and what can be done with each; every change asks first. */
function Moves({ path, versions, onDone }) {
  const [asked, ask] = useState(null);
  const now = versions.data.find((one) => one.in_service);
  const [state, act] = useAction(async ({ route: to, body, done }) => {
    ask(null);
    await post(`${path}/${to}`, body);
    onDone();
    return done;
  });
  const promote = ({ version }) =>
    ask({ title: `Put v${version} in service?`, action: `Promote v${version}`, route: "promote", done: `Version ${version} serves.`,
      body: { version, why: "chosen in the console", expected_generation: versions.generation }, note: now ? `It replaces v${now.version}.` : "Nothing serves under this name now." });
  const rollBack = () =>
    ask({ title: "Roll back?", action: "Roll back", route: "rollback", body: { why: "rolled back in the console" }, done: "The version before serves again.", note: `It replaces v${now.version} with the version that served before.` });
  const columns = [
    ["Version", (one) => html`v${one.version} ${one.in_service && html`<span class="tag good-text">in service</span>`}`],
    ["Trained", (one) => time(one.created)],
    ["Gate", (one) => plain(one.decision ?? "–")],
    ["Job", (one) => (one.job ? html`<a href=${link("jobs", one.job)}>report</a>` : "–")],
    ["Change", (one) => (one.in_service ? "" : one.error ? plain(one.error) : html`<${Button} quiet onClick=${() => promote(one)}>Promote v${one.version}<//>`)],
  ];
  return html`
    <${Card} title="Versions" aside=${now && versions.data.length > 1 && html`<${Button} quiet onClick=${rollBack}>Roll back<//>`}>
      <${ErrorNotice} error=${state.error} />
      ${state.data && html`<${Notice} kind="good">${state.data}<//>`}
      <${Table} label="Versions" columns=${columns} rows=${versions.data} />
    <//>
    ${asked && html`<${Confirm} title=${asked.title} action=${asked.action} onYes=${() => act(asked)} onNo=${() => ask(null)}><p>${asked.note} Requests go on meanwhile.</p><//>`}
  `;
}

function Metrics({ versions }) {
  const shown = versions.slice(0, SHOWN_VERSIONS);
  const names = [...new Set(shown.flatMap((one) => Object.keys(one.metrics)))];
  const labels = Object.assign({}, ...shown.map((one) => one.metric_labels));
  const columns = [["Metric", (name) => plain(labels[name])], ...shown.map((one) => [`v${one.version}`, (name) => number(one.metrics[name] ?? "–")])];
  return html`
    <${Card} title="Metrics side by side">
      <${Table} label="Metrics of the versions" columns=${columns} rows=${names} numbers=${shown.map((_, at) => at + 1)} />
      ${versions.length > shown.length && html`<p class="faint">The newest ${shown.length} versions.</p>`}
    <//>
  `;
}

function Contract({ model }) {
  const shape = ({ name, dtype, shape: sizes, columns }) => `${name}: ${dtype} [${sizes.join(", ")}]${columns ? ` of ${columns.join(", ")}` : ""}`;
  const facts = {
    Task: model.task,
    Takes: model.signature.inputs.map(shape).join("; "),
    Gives: model.signature.outputs.map(shape).join("; "),
    Labels: model.labels.join(", "),
    Device: `${model.device}, ${model.dtype}: ${model.reason}`,
    Notes: model.notes.join("; "),
  };
  return html`
    <${Card} title="Contract">
      <dl>${Object.entries(facts).filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${plain(value)}</dd>`)}</dl>
    <//>
  `;
}

function History({ entries }) {
  const columns = [
    ["When", (one) => time(one.at)],
    ["What", (one) => `${one.action.replaceAll("_", " ")}${one.version ? ` v${one.version}` : ""}`],
    ["Why", (one) => plain(one.why)],
    ["By", (one) => html`<span class="mono">${plain(one.by)}</span>`],
  ];
  return html`<${Card} title="History"><${Table} label="History" columns=${columns} rows=${[...entries].reverse().slice(0, 100)} /><//>`;
}
