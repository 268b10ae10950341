// Texts that are unlike normal ones: by a trained detector, or by a reference that the person writes.
import { html, useState } from "../html.mjs";
import { Notice, Table, number, plain } from "../parts/basics.mjs";
import { RequestForm, Texts, requireTexts, useRequest } from "./form.mjs";

const NORMAL = `Where is my card?
My card has not arrived.
I lost my card.
How do I block my card?
My card was stolen.
When will my new card come?
I want my money back.
How do I get a refund?
The refund has not arrived.
Why was I charged a fee?
There is a charge that I do not know.
My payment was declined.
Can I change my PIN?
I forgot my PIN.
How do I close my account?
Can I open a second account?
My transfer is missing.
How long does a transfer take?
The app does not let me in.
I changed my phone number.`;

export default function Unusual({ models }) {
  const suitable = models.filter((one) => one.task === "embedding" || (one.task === "anomaly" && one.base !== "sensors"));
  const request = useRequest("v1/anomaly/score", suitable.sort((a, b) => a.task.localeCompare(b.task)));
  const [text, write] = useState("My card is gone.\nThe moon is made of cheese.");
  const [normal, describe] = useState(NORMAL);
  const isEncoder = suitable.find((one) => one.id === request.model)?.task === "embedding";
  const { data } = request.state;
  function build() {
    const input = requireTexts(text, "Texts", 1, 500);
    return isEncoder ? { input, reference: requireTexts(normal, "Normal texts", 2) } : { input };
  }
  const columns = [
    ["Text", (one) => plain(data.body.input[one.index])],
    ["Unusual?", (one) => (one.is_anomaly ? html`<b class="bad-text">unusual</b>` : "normal")],
    ["p-value", (one) => number(one.p_value)],
    ["Score", (one) => number(one.score)],
    ["Most alike", (one) => nearest(one, data.body.reference)],
  ];
  return html`
    <${RequestForm} request=${request} action="Score" build=${build} missing="No encoder and no detector of texts is in service.">
      <${Texts} label="Texts" value=${text} onInput=${write} />
      ${isEncoder && html`<${Texts} label="Normal texts" hint="One text a line; 20 or more for an alarm rate of 5 %." value=${normal} onInput=${describe} />`}
    <//>
    ${data?.answer.warnings.map((warning) => html`<${Notice} kind="warn">${plain(warning)}<//>`)}
    ${data && html`<${Table} label="Scores" rows=${data.answer.data} columns=${columns} numbers=${[2, 3]} />`}
  `;
}

function nearest({ nearest: found }, reference) {
  const [best] = found;
  return best ? `${reference ? plain(reference[best.index]) : `text ${best.index + 1} of the training`} (${best.similarity.toFixed(2)})` : "–";
}
