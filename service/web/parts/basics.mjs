// Small parts of every page.
import { isUnreachable, key } from "../api.mjs";
import { html, useCallback, useEffect, useId, useRef, useState } from "../html.mjs";
import { cloneElement, toChildArray } from "../vendor/preact.mjs";

export function Button({ quiet, danger, type = "button", ...more }) {
  const look = quiet ? "quiet" : danger ? "danger" : "";
  return html`<button type=${type} class=${look} ...${more} />`;
}

/** A message: `kind` is info, good, warn or bad. */
export function Notice({ kind = "info", children }) {
  return html`<div class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : "status"}>${children}</div>`;
}

export function ErrorNotice({ error }) {
  if (!error || error.status === 401) return null;
  const other = error.status === 403 && html` Choose <b>Change key</b> above to use another one.`;
  return html`<${Notice} kind="bad">${plain(error.message)}${other}<//>`;
}

export const Loading = () => html`<p class="faint" role="status">Loading …</p>`;

export function Card({ title, aside, children }) {
  return html`
    <section class="card">
      ${title && html`<header class="row"><h2>${title}</h2>${aside}</header>`}
      ${children}
    </section>
  `;
}

/** A label over its control, which may have a hint. */
export function Field({ label, hint, children }) {
  const id = useId();
  const [control, ...rest] = toChildArray(children);
  const described = hint ? { "aria-describedby": `${id}-hint` } : {};
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${cloneElement(control, { id, ...described })} ${rest}
      ${hint && html`<small id=${`${id}-hint`}>${hint}</small>`}
    </div>
  `;
}

export function Select({ value, options, onChange, ...more }) {
  return html`
    <select value=${value} onChange=${(event) => onChange(event.target.value)} ...${more}>
      ${options.map((option) => {
        const [name, text] = Array.isArray(option) ? option : [option, option];
        return html`<option value=${name} selected=${name === value}>${plain(text)}</option>`;
      })}
    </select>
  `;
}

/** A table that scrolls sideways on narrow screens. A column is `[title, row => cell]`. */
export function Table({ label, columns, rows, empty = "None yet.", numbers = [] }) {
  if (!rows.length) return html`<p class="faint">${empty}</p>`;
  const align = (at) => (numbers.includes(at) ? "number" : null);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table>
        <thead><tr>${columns.map(([title], at) => html`<th scope="col" class=${align(at)}>${title}</th>`)}</tr></thead>
        <tbody>
          ${rows.map((row) => html`<tr>${columns.map(([, cell], at) => html`<td class=${align(at)}>${cell(row)}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
  `;
}

/** Rows a page at a time, with a filter by the text that `text` gives of a row. */
export function PagedTable({ rows, text, size = 25, ...more }) {
  const [wanted, filter] = useState("");
  const [at, turn] = useState(0);
  const found = wanted ? rows.filter((row) => text(row).toLowerCase().includes(wanted.toLowerCase())) : rows;
  const pages = Math.max(Math.ceil(found.length / size), 1);
  const now = Math.min(at, pages - 1);
  return html`
    ${rows.length > size &&
    html`<${Field} label="Filter"><input type="search" value=${wanted} onInput=${(event) => filter(event.target.value)} /><//>`}
    <${Table} rows=${found.slice(now * size, (now + 1) * size)} ...${more} />
    ${pages > 1 &&
    html`<nav class="row" aria-label=${`Pages of ${more.label}`}>
      <${Button} quiet disabled=${now === 0} onClick=${() => turn(now - 1)}>Previous<//>
      <span>Page ${now + 1} of ${pages}, ${count(found.length)} rows</span>
      <${Button} quiet disabled=${now === pages - 1} onClick=${() => turn(now + 1)}>Next<//>
    </nav>`}
  `;
}

/** Tabs with arrow keys. An item is `[name, title]`. */
export function Tabs({ label, items, value, onChange }) {
  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = items.findIndex(([name]) => name === value);
    const [name] = items[(at + step + items.length) % items.length];
    onChange(name);
    event.currentTarget.querySelector(`[data-name="${name}"]`).focus();
  }
  return html`
    <div class="tabs" role="tablist" aria-label=${label} onKeyDown=${move}>
      ${items.map(
        ([name, title]) => html`
          <button
            type="button"
            role="tab"
            data-name=${name}
            aria-selected=${name === value}
            tabindex=${name === value ? 0 : -1}
            onClick=${() => onChange(name)}
          >
            ${title}
          </button>
        `,
      )}
    </div>
  `;
}

/** A question before something that is hard to take back. */
export function Confirm({ title, action, onYes, onNo, children }) {
  const dialog = useRef(null);
  const id = useId();
  useEffect(() => dialog.current.showModal(), []);
  return html`
    <dialog ref=${dialog} aria-labelledby=${id} onClose=${onNo}>
      <h2 id=${id}>${title}</h2>
      ${children}
      <div class="row">
        <${Button} danger onClick=${onYes}>${action}<//>
        <${Button} quiet onClick=${onNo}>Leave it as it is<//>
      </div>
    </dialog>
  `;
}

/** The answer of `load(signal)`: `{data, error, isLoading, reload}`; loaded anew for other `inputs`, another key, and a service that is back. */
export function useLoad(load, inputs = []) {
  const [state, set] = useState({ isLoading: true });
  const [round, reload] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    set((before) => ({ ...before, isLoading: true }));
    load(abort.signal).then(
      (data) => set({ data }),
      (error) => abort.signal.aborted || set((before) => ({ data: before.data, error })),
    );
    return () => abort.abort();
  }, [round, key.value, isUnreachable.value, ...inputs]);
  return { ...state, reload: useCallback(() => reload((before) => before + 1), []) };
}

/** Call the newest `act` every `seconds` while the page is visible; 0 seconds stop it. */
export function useEvery(seconds, act) {
  const newest = useRef(act);
  newest.current = act;
  useEffect(() => {
    if (!seconds) return undefined;
    const timer = setInterval(() => document.hidden || newest.current(), 1000 * seconds);
    return () => clearInterval(timer);
  }, [seconds]);
}

/** What a person started: `[{data, error, isBusy}, start]`; a second start while one runs does nothing. */
export function useAction(act) {
  const [state, set] = useState({});
  const isBusy = useRef(false);
  async function start(...given) {
    if (isBusy.current) return;
    isBusy.current = true;
    set((before) => ({ data: before.data, isBusy: true }));
    try {
      set({ data: await act(...given) });
    } catch (error) {
      set({ error });
    } finally {
      isBusy.current = false;
    }
  }
  return [state, start];
}

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f]/g;
/** A text with control characters shown as symbols: ␛ for escape. */
export const plain = (text) =>
  String(text ?? "").replace(CONTROL, (found) => (found === "\u007f" ? "␡" : String.fromCharCode(0x2400 + found.charCodeAt(0))));

export const count = (value) => Number(value).toLocaleString("en");
export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
export const number = (value) =>
  typeof value !== "number" ? plain(value) : Number.isInteger(value) ? count(value) : value.toPrecision(4).replace(/0+$/, "").replace(/\.$/, "");
export const time = (seconds) => (seconds ? new Date(1000 * seconds).toLocaleString() : "–");
export const milliseconds = (seconds) => (Number.isFinite(seconds) ? `${(1000 * seconds).toPrecision(3)} ms` : "–");
export const bytes = (size) => (size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`);
