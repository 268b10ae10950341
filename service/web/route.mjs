// The address of a page: `#/jobs/ftjob-1?after=…`.
import { computed, signal } from "./html.mjs";

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

/** The page's name, the rest of the path, and the query. */
export const route = computed(() => {
  const [path, query = ""] = hash.value.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map(decode);
  return { page: page || "overview", rest, query: new URLSearchParams(query) };
});

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export function go(...parts) {
  location.hash = link(...parts);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
