// The frame around all pages: navigation, the question for a key, and the page of the address.
import { forgetKey, get, isUnreachable, key, keyProblem, useKey } from "./api.mjs";
import { html, render, useEffect, useRef, useState } from "./html.mjs";
import { Button, ErrorNotice, Field, Loading, Notice, useEvery } from "./parts/basics.mjs";
import { route } from "./route.mjs";

const PAGES = {
  overview: ["Overview", () => import("./pages/overview.mjs")],
  playground: ["Playground", () => import("./pages/playground.mjs")],
  jobs: ["Jobs", () => import("./pages/jobs.mjs")],
  models: ["Models", () => import("./pages/models.mjs")],
  review: ["Review", () => import("./pages/review.mjs")],
};

function App() {
  const { page } = route.value;
  // Any answer says that the service is back; while there is none, the notice below says so.
  useEvery(isUnreachable.value ? 2 : 0, () => get("health/live").catch(() => {}));
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <header class="bar">
      <a class="brand" href="#/overview">Sonde</a>
      <nav aria-label="Pages">
        ${Object.entries(PAGES).map(
          ([name, [title]]) => html`<a href=${`#/${name}`} aria-current=${name === page ? "page" : null}>${title}</a>`,
        )}
        <a href="docs">API</a>
      </nav>
      ${key.value && html`<${Button} quiet onClick=${forgetKey}>Change key<//>`}
    </header>
    <main id="main" tabindex="-1">
      ${isUnreachable.value && html`<${Notice} kind="bad">The service does not answer. This page goes on when it is back.<//>`}
      ${keyProblem.value ? html`<${AskForKey} />` : html`<${Page} key=${page} name=${page} />`}
    </main>
  `;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

/** The page, whose module is loaded when it is first shown. */
function Page({ name }) {
  const [shown, show] = useState(null);
  const [error, fail] = useState(null);
  const [title, load] = PAGES[name] ?? [];
  useEffect(() => {
    document.title = title ? `${title} · Sonde` : "Sonde";
    load?.().then((module) => show(() => module.default), fail);
  }, [name]);
  if (!load) return html`<h1>No such page</h1><${Notice} kind="bad">There is no page “${name}”. Choose one above.<//>`;
  if (error) return html`<${ErrorNotice} error=${{ message: "The page could not be loaded. Reload it once the service is back." }} />`;
  return shown ? html`<${shown} />` : html`<${Loading} />`;
}

function AskForKey() {
  const input = useRef(null);
  useEffect(() => input.current.focus(), []);
  function submit(event) {
    event.preventDefault();
    if (input.current.value.trim()) useKey(input.current.value.trim());
  }
  return html`
    <section class="card narrow">
      <h1>This service needs a key</h1>
      <p>${keyProblem.value}</p>
      <p>
        An operator makes one with <code>sonde keys create --scope train</code>. The scope <code>infer</code> opens the
        playground, <code>train</code> also jobs and review, and <code>admin</code> everything.
      </p>
      <form onSubmit=${submit}>
        <${Field} label="API key" hint="Kept until you close this tab, and sent to this service alone.">
          <input ref=${input} type="password" autocomplete="off" spellcheck=${false} required />
        <//>
        <${Button} type="submit">Use this key<//>
      </form>
    </section>
  `;
}

render(html`<${App} />`, document.getElementById("root"));
