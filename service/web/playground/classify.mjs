// Labels for texts: a trained model's own, or those that the person writes.
import { html, useState } from "../html.mjs";
import { Bars } from "../parts/bars.mjs";
import { Card, plain } from "../parts/basics.mjs";
import { RequestForm, Texts, lines, requireTexts, useRequest } from "./form.mjs";

const MOST_TEXTS = 50;

export default function Classify({ models }) {
  const suitable = models.filter((one) => one.task === "classification" || one.task === "embedding");
  // Trained ones first: they know their labels.
  const request = useRequest("v1/classify", suitable.sort((a, b) => a.task.localeCompare(b.task)));
  const [text, write] = useState("Where is my card?\nI want my money back.");
  const [labels, name] = useState("card\nrefund\ngreeting");
  const isEncoder = suitable.find((one) => one.id === request.model)?.task === "embedding";
  const { data } = request.state;
  function build() {
    const input = requireTexts(text, "Texts", 1, MOST_TEXTS);
    return isEncoder ? { input, labels: readLabels(labels) } : { input };
  }
  return html`
    <${RequestForm} request=${request} action="Classify" build=${build} missing="No classifier and no encoder is in service.">
      <${Texts} label="Texts" hint=${`One text a line, at most ${MOST_TEXTS}.`} value=${text} onInput=${write} />
      ${isEncoder && html`<${Texts} label="Labels" hint="One label a line. “card: Where is my card?” gives an example; repeat the label for more." value=${labels} onInput=${name} />`}
    <//>
    ${data && data.answer.data.map((one) => html`<${Result} text=${data.body.input[one.index]} result=${one} />`)}
  `;
}

/** Names, or names with their examples where any line has one. */
export function readLabels(text) {
  const found = {};
  for (const line of lines(text)) {
    const [name, ...example] = line.split(":");
    (found[name.trim()] ??= []).push(...(example.length ? [example.join(":").trim()] : []));
  }
  if (!Object.keys(found).length) throw new Error("Labels: expected at least one line.");
  return Object.values(found).some((examples) => examples.length)
    ? Object.fromEntries(Object.entries(found).map(([name, examples]) => [name, examples.length ? examples : name]))
    : Object.keys(found);
}

function Result({ text, result }) {
  return html`
    <${Card} title=${plain(text)}>
      ${result.out_of_scope && html`<p class="warn-text">Unlike the examples of every label (p-value ${result.p_value.toPrecision(2)}).</p>`}
      <${Bars} labels=${result.labels.slice(0, 8)} />
    <//>
  `;
}
