// What all parts of the playground share: the model, the button, the error, and the request to copy.
import { post } from "../api.mjs";
import { hasFiles, postForm } from "../form-data.mjs";
import { html, useState } from "../html.mjs";
import { Button, ErrorNotice, Field, Notice, Select, useAction } from "../parts/basics.mjs";
import { Samples } from "../parts/samples.mjs";

// What one request may carry, by the service's defaults.
const MOST_BYTES = 16 * 2 ** 20;

/** The texts of a box, one a line. */
export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** The state of one part: which of the suitable models, and the answer to the last request. */
export function useRequest(path, models) {
  const [chosen, choose] = useState(null);
  const model = models.some((one) => one.id === chosen) ? chosen : (models[0]?.id ?? null);
  const [state, start] = useAction(async (body) => ({ body, answer: await send(path, body) }));
  return { path, models, model, choose, state, send: (body) => start({ model, ...body }) };
}

const send = (path, body) => (hasFiles(body) ? postForm(path, body) : post(path, body));

/** A form around the fields of a part. `build` gives the body without the model, or throws an Error for the person. */
export function RequestForm({ request, action, build, missing, children }) {
  const [problem, say] = useState(null);
  const { models, model, choose, state, send, path } = request;
  if (!models.length) return html`<${Notice}>${missing}<//>`;
  function submit(event) {
    event.preventDefault();
    try {
      const body = build();
      say(null);
      send(body);
    } catch (error) {
      say(error);
    }
  }
  return html`
    <form onSubmit=${submit}>
      <${Field} label="Model"><${Select} value=${model} options=${models.map((one) => one.id)} onChange=${choose} /><//>
      ${children}
      <${Button} type="submit" disabled=${state.isBusy}>${state.isBusy ? "Waiting …" : action}<//>
    </form>
    <${ErrorNotice} error=${problem ?? state.error} />
    ${state.data && html`<${Samples} path=${path} body=${state.data.body} />`}
  `;
}

export function Texts({ label, hint = "One text a line.", value, onInput }) {
  return html`<${Field} label=${label} hint=${hint}><textarea value=${value} onInput=${(event) => onInput(event.target.value)} /><//>`;
}

/** Texts of a box. Throws an Error unless there are `least` to `most`. */
export function requireTexts(text, name, least = 1, most = 2048) {
  const found = lines(text);
  if (found.length < least || found.length > most)
    throw new Error(`${name}: expected ${least} to ${most} lines, got ${found.length}.`);
  return found;
}

/** Picture files. Throws an Error unless there are `least`, and few enough for a request. */
export function requirePictures(files, name, least = 1) {
  if (files.length < least) throw new Error(`${name}: expected at least ${least}, got ${files.length}. Drop them above.`);
  const size = files.reduce((sum, one) => sum + one.size, 0);
  if (size > MOST_BYTES) throw new Error(`${name}: expected at most 16 MiB together, got ${Math.ceil(size / 2 ** 20)} MiB. Drop fewer or smaller ones.`);
  return files;
}
