// Models in service, each once.
import { get } from "./api.mjs";

const VERSION = /:v?\d+$/;

/** The list of models, where a trained one stands by its name and again by its version: by its name alone. */
export async function loadModels(aborted) {
  const { data } = await get("v1/models", { signal: aborted });
  const names = new Set(data.map((one) => one.id));
  return data.filter((one) => !(one.base !== null && VERSION.test(one.id) && names.has(one.id.replace(VERSION, ""))));
}

// An exported program has dimensions, and its inputs names of its own.
const inputs = ({ signature }) => (signature?.dimensions ? [] : (signature?.inputs ?? []).map((one) => one.name));
export const readsTexts = (model) => inputs(model).some((name) => name === "text" || name === "pair");
export const readsImages = (model) => inputs(model).includes("image");
