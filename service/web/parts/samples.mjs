// A request as a person would send it: curl, Python and JavaScript, to copy.
import { key } from "../api.mjs";
import { fields, hasFiles } from "../form-data.mjs";
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
    const more = `… ${value.length - SHOWN_VALUES} more`;
    return value.length > SHOWN_VALUES ? [...kept, value[0] instanceof File ? new File([], more) : more] : kept;
  }
  const isPlain = value && typeof value === "object" && !(value instanceof File);
  return isPlain ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, shorten(one)])) : value;
}

function toCurl(url, body, withKey) {
  const header = withKey ? ` \\\n  -H "authorization: Bearer $SONDE_API_KEY"` : "";
  const content = hasFiles(body)
    ? fields(body).map(([name, value]) => ` \\\n  -F ${quote(`${name}=${value instanceof File ? `@${curlName(value.name)}` : value}`)}`).join("")
    : ` \\\n  -H 'content-type: application/json' \\\n  -d ${quote(JSON.stringify(body))}`;
  return `curl ${quote(url)}${header}${content}`;
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** A file's name in quotes where curl would cut it. */
const curlName = (name) => (/[;,"]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name);

function toPython(url, body, withKey) {
  const headers = withKey ? `\n    headers={"authorization": f"Bearer {os.environ['SONDE_API_KEY']}"},` : "";
  return `# needs: pip install httpx
${withKey ? "import os\n\n" : ""}import httpx

answer = httpx.post(
    "${url}",${headers}
    ${hasFiles(body) ? pythonForm(body) : `json=${pythonLiteral(body)}`},
    timeout=60,
)
answer.raise_for_status()
print(answer.json())`;
}

function pythonForm(body) {
  const all = fields(body);
  const texts = Object.fromEntries(all.filter(([, value]) => !(value instanceof File)));
  const files = all.filter(([, value]) => value instanceof File);
  const opened = files.map(([name, file]) => `        ("${name}", open(${JSON.stringify(file.name)}, "rb")),\n`);
  return `data=${pythonLiteral(texts)},\n    files=[\n${opened.join("")}    ]`;
}

function toJavaScript(url, body, withKey) {
  const authorization = withKey ? " authorization: `Bearer ${process.env.SONDE_API_KEY}`," : "";
  const isForm = hasFiles(body);
  const type = isForm ? "" : ' "content-type": "application/json"';
  return `${isForm ? javaScriptForm(body) : ""}const answer = await fetch("${url}", {
  method: "POST",
  headers: {${authorization}${type} },
  body: ${isForm ? "form" : `JSON.stringify(${JSON.stringify(body)})`},
});
if (!answer.ok) throw new Error(await answer.text());
console.log(await answer.json());`;
}

function javaScriptForm(body) {
  const appended = fields(body).map(([name, value]) => {
    const content = JSON.stringify(value instanceof File ? value.name : value);
    return `form.append("${name}", ${value instanceof File ? `await openAsBlob(${content}), ${content}` : content});\n`;
  });
  return `import { openAsBlob } from "node:fs"; // Node 20 or newer

const form = new FormData();
${appended.join("")}
`;
}

/** JSON is Python, but for three words. */
function pythonLiteral(value) {
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (value && typeof value === "object")
    return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${pythonLiteral(one)}`).join(", ")}}`;
  if (value === null) return "None";
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
}
