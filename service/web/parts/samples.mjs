// A request as a person would send it: curl, Python and JavaScript, to copy.
import { key } from "../api.mjs";
import { html, useState } from "../html.mjs";
import { Button, Tabs } from "./basics.mjs";

const LANGUAGES = { curl: toCurl, Python: toPython, JavaScript: toJavaScript };
const SHOWN_VALUES = 20;

export function Samples({ path, body }) {
  const [language, choose] = useState("curl");
  const [copied, mark] = useState(false);
  const url = new URL(path, document.baseURI).href;
  const write = (content) => LANGUAGES[language](url, content, Boolean(key.value));
  async function copy() {
    await navigator.clipboard.writeText(write(body));
    mark(true);
    setTimeout(() => mark(false), 2000);
  }
  return html`
    <details class="card">
      <summary>This request in curl, Python and JavaScript</summary>
      <${Tabs} label="Language" items=${Object.keys(LANGUAGES).map((name) => [name, name])} value=${language} onChange=${choose} />
      <pre tabindex="0" aria-label=${`The request in ${language}`}>${write(shorten(body))}</pre>
      ${navigator.clipboard && html`<p><${Button} quiet onClick=${copy}>${copied ? "Copied" : "Copy all of it"}<//></p>`}
    </details>
  `;
}

/** The body with long lists cut, as the page shows it; the copy has all of it. */
function shorten(value) {
  if (Array.isArray(value)) {
    const kept = value.slice(0, SHOWN_VALUES).map(shorten);
    return value.length > SHOWN_VALUES ? [...kept, `… ${value.length - SHOWN_VALUES} more`] : kept;
  }
  return value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, shorten(one)])) : value;
}

function toCurl(url, body, withKey) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const header = withKey ? ` \\\n  -H "authorization: Bearer $SONDE_API_KEY"` : "";
  return `curl '${url}'${header} \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`;
}

function toPython(url, body, withKey) {
  const headers = withKey ? `\n    headers={"authorization": f"Bearer {os.environ['SONDE_API_KEY']}"},` : "";
  return `# needs: pip install httpx
${withKey ? "import os\n\n" : ""}import httpx

answer = httpx.post(
    "${url}",${headers}
    json=${pythonLiteral(body)},
    timeout=60,
)
answer.raise_for_status()
print(answer.json())`;
}

function toJavaScript(url, body, withKey) {
  const authorization = withKey ? ` authorization: \`Bearer \${process.env.SONDE_API_KEY}\`,` : "";
  return `const answer = await fetch("${url}", {
  method: "POST",
  headers: {${authorization} "content-type": "application/json" },
  body: JSON.stringify(${JSON.stringify(body)}),
});
if (!answer.ok) throw new Error(await answer.text());
console.log(await answer.json());`;
}

/** JSON is Python, but for three words. */
function pythonLiteral(value) {
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (value && typeof value === "object")
    return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${pythonLiteral(one)}`).join(", ")}}`;
  if (value === null) return "None";
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
}
