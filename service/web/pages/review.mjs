// Review: the texts and images that the service was least certain about, corrected by keyboard, and a job on the corrections.
import { get, post } from "../api.mjs";
import { html, useEffect, useLayoutEffect, useState } from "../html.mjs";
import { look, looks, samples } from "../metrics.mjs";
import { loadModels } from "../models.mjs";
import { Button, Card, ErrorNotice, Field, Loading, Notice, Select, Table, percent, plain, useAction, useLoad } from "../parts/basics.mjs";
import { trainOnFeedback } from "../review/retraining.mjs";
import { link } from "../route.mjs";

const PAGE = 100;

export default function Review() {
  const models = useLoad(loadModels);
  const [chosen, choose] = useState(null);
  if (!models.data) return models.error ? html`<${ErrorNotice} error=${models.error} />` : html`<${Loading} />`;
  const trained = models.data.filter((one) => one.task === "classification").map((one) => one.id);
  const names = [...trained, ...models.data.filter((one) => one.task === "embedding").map((one) => one.id)];
  const model = names.includes(chosen) ? chosen : names[0];
  const labels = models.data.find((one) => one.id === model)?.labels ?? [];
  return html`
    <h1>Review</h1>
    <p>Texts and images that the service answered, with the least certain first. Choose the right label; a job can train on your choices.</p>
    ${names.length > 0 && html`<${Field} label="Model"><${Select} value=${model} options=${names} onChange=${choose} /><//>`}
    ${model && html`<${Queue} model=${model} labels=${labels} key=${model} />`}
    <${Drift} />
  `;
}

function Queue({ model, labels }) {
  const kept = useLoad((aborted) => get(`v1/kept_inputs?limit=${PAGE}&model=${encodeURIComponent(model)}`, { signal: aborted }), [model]);
  const [done, finish] = useState(0);
  const [trained, train] = useAction(() => trainOnFeedback(model));
  const list = kept.data?.data ?? [];
  return html`
    <${ErrorNotice} error=${kept.error} />
    ${kept.data?.kept_per_key === 0 && html`<${Notice}>
      The service keeps no texts or images, which is the default. Start it with <code>--keep-inputs 500</code> to keep the newest 500 of each key, in memory alone.
    <//>`}
    ${kept.data && kept.data.kept_per_key > 0 && !list.length && html`<${Notice} kind="good">Nothing of this model waits. Send some texts or images through /v1/classify.<//>`}
    ${list.length > 0 && html`<${Choice} item=${list[0]} labels=${labels} left=${list.length} hasMore=${kept.data.has_more} onDone=${() => (finish(done + 1), kept.reload())} key=${list[0].id} />`}
    <${Card} title="Train on the feedback">
      <p>${done ? `${done} labels chosen on this page. ` : ""}The job learns from the rows of before and from all feedback on this model. Its result is compared with the version in service.</p>
      <${Button} onClick=${train} disabled=${trained.isBusy}>${trained.isBusy ? "Starting …" : "Train on the feedback"}<//>
      <${ErrorNotice} error=${trained.error} />
      ${trained.data && html`<${Notice} kind="good">The job is started${trained.data.note ? `, ${trained.data.note}` : ""}. <a href=${link("jobs", trained.data.job.id)}>Watch it</a><//>`}
    <//>
  `;
}

/** One text or image with its labels, which the keys 1 to 9 choose. */
function Choice({ item, labels, left, hasMore, onDone }) {
  const [other, write] = useState("");
  const guessed = item.labels.map((one) => one.label);
  const offered = [...guessed, ...labels.filter((one) => !guessed.includes(one))].slice(0, 9);
  const [state, say] = useAction(async (correct) => {
    await post("v1/feedback", { model: item.model, text: item.text, image: item.image, label: guessed[0], correct_label: correct });
    onDone();
    return true;
  });
  const isSaid = state.isBusy || state.data === true; // until the next one is here
  function press(event) {
    const chosen = offered[Number(event.key) - 1];
    const isForThis = !event.target.closest("input, select, textarea") && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (chosen && isForThis && !isSaid) say(chosen);
  }
  useLayoutEffect(() => {
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  });
  return html`
    <section class="card" aria-label=${item.image ? "The image to label" : "The text to label"}>
      ${item.image ? html`<p class="plot"><img src=${item.image} alt="The image to label" /></p>` : html`<h2>${plain(item.text)}</h2>`}
      <p class="faint">The model says ${plain(guessed[0])} with ${percent(item.labels[0].score)}. ${left}${hasMore ? "+" : ""} ${item.image ? "images" : "texts"} wait. Press a number, or choose:</p>
      <div class="row">
        ${offered.map((label, at) => html`<${Button} quiet=${at > 0} disabled=${isSaid} onClick=${() => say(label)}>${at + 1}. ${plain(label)}<//>`)}
      </div>
      <form class="row" onSubmit=${(event) => (event.preventDefault(), other.trim() && say(other.trim()))}>
        <${Field} label="Another label"><input list="labels" value=${other} onInput=${(event) => write(event.target.value)} maxlength="256" /><//>
        <datalist id="labels">${labels.map((label) => html`<option value=${label} />`)}</datalist>
        <${Button} type="submit" quiet disabled=${isSaid || !other.trim()}>Use it<//>
      </form>
      <${ErrorNotice} error=${state.error} />
    </section>
  `;
}

function Drift() {
  useEffect(() => void look().catch(() => {}), []);
  const found = samples(looks.value.at(-1), "sonde_drift_detected");
  const columns = [
    ["Detector", ({ labels }) => plain(labels.model)],
    ["Version", ({ labels }) => plain(labels.version)],
    ["Drift", ({ value }) => (value ? html`<b class="warn-text">the readings have changed: train it again</b>` : "none")],
  ];
  return html`<${Card} title="Drift of detectors"><${Table} label="Drift of detectors" columns=${columns} rows=${found} empty="No sensor model has scored readings yet." /><//>`;
}
