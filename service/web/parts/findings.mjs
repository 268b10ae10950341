// The findings of a report: what needs a look first, the rest folded.
import { html } from "../html.mjs";
import { Notice, plain } from "./basics.mjs";

const KINDS = { fail: "bad", warn: "warn" };
const WORDS = { ok: "fine", warn: "look at this", fail: "stop", skipped: "skipped" };
const MOST_ROWS = 10;

export function Findings({ report }) {
  const findings = report.rungs.flatMap((rung) => rung.findings);
  const open = findings.filter((one) => one.status in KINDS).sort((a, b) => a.status.localeCompare(b.status));
  const folded = report.rungs.filter((rung) => rung.findings.length);
  return html`
    ${open.map((one) => html`<${Problem} finding=${one} />`)}
    ${!open.length && findings.length > 0 && html`<${Notice} kind="good">All ${findings.length} checks that ran are fine.<//>`}
    <details>
      <summary>All checks</summary>
      ${folded.map(
        (rung) => html`
          <h3>${rung.title ?? rung.rung}: ${WORDS[rung.status] ?? rung.status}</h3>
          <ul class="plain">${rung.findings.map((one) => html`<li><b>${WORDS[one.status]}</b> · ${named(one)}: ${plain(one.message)}</li>`)}</ul>
        `,
      )}
    </details>
  `;
}

function Problem({ finding }) {
  const more = finding.rows.length - MOST_ROWS;
  return html`
    <${Notice} kind=${KINDS[finding.status]}>
      <b>${named(finding)}.</b> ${plain(finding.message)}
      ${finding.rows.length > 0 && html` <span class="faint">Rows ${finding.rows.slice(0, MOST_ROWS).join(", ")}${more > 0 ? ` and ${more} more` : ""}.</span>`}
      ${finding.remedy && html`<p>What to do: ${plain(finding.remedy)}</p>`}
    <//>
  `;
}

const named = (one) => plain((one.label || one.check.replaceAll("_", " ")) + (one.subject ? ` (${one.subject})` : ""));
