// Documents by their relevance to a query.
import { html, useState } from "../html.mjs";
import { Field, Table, plain } from "../parts/basics.mjs";
import { RequestForm, Texts, requireTexts, useRequest } from "./form.mjs";

export default function Rerank({ models }) {
  const suitable = models.filter((one) => one.task === "rerank" || one.task === "embedding");
  const request = useRequest("v2/rerank", suitable.sort((a, b) => b.task.localeCompare(a.task)));
  const [query, ask] = useState("my card is gone");
  const [documents, write] = useState("Block a lost or stolen card in the app.\nA transfer takes one working day.\nOrder a new card in any branch.");
  const { data } = request.state;
  function build() {
    if (!query.trim()) throw new Error("Query: expected a text.");
    return { query: query.trim(), documents: requireTexts(documents, "Documents") };
  }
  const columns = [
    ["Rank", (one) => one.rank],
    ["Document", (one) => plain(data.body.documents[one.index])],
    ["Relevance", (one) => one.relevance_score.toFixed(4)],
  ];
  return html`
    <${RequestForm} request=${request} action="Rank" build=${build} missing="No reranker and no encoder is in service.">
      <${Field} label="Query"><input value=${query} onInput=${(event) => ask(event.target.value)} /><//>
      <${Texts} label="Documents" hint="One document a line." value=${documents} onInput=${write} />
    <//>
    ${data && html`<${Table} label="Documents by relevance" columns=${columns} numbers=${[0, 2]}
      rows=${data.answer.results.map((one, at) => ({ ...one, rank: at + 1 }))} />`}
  `;
}
