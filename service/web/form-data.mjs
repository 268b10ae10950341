// Bodies with files: the service takes them as multipart forms, under the names that JSON has.
import { call } from "./api.mjs";

/** Whether a body has files, which are lists of them. */
export const hasFiles = (body) => Object.values(body).some(isFiles);
const isFiles = (value) => Array.isArray(value) && value[0] instanceof File;

/** The fields `[name, value]` of a body as a form: a File for each one of a list of them, else a text. */
export const fields = (body) =>
  Object.entries(body).flatMap(([name, value]) =>
    isFiles(value) ? value.map((one) => [name, one]) : [[name, typeof value === "string" ? value : JSON.stringify(value)]],
  );

/** The answer to a body with files. An ApiError about one of them names it. */
export async function postForm(path, body) {
  const form = new FormData();
  for (const [name, value] of fields(body)) form.append(name, value);
  try {
    return await call("POST", path, { form });
  } catch (error) {
    const [, name, at] = /^(\w+)\[(\d+)\]$/.exec(error.param ?? "") ?? [];
    const file = body[name]?.[at];
    if (file instanceof File) error.message = error.message.replace(error.param, file.name);
    throw error;
  }
}
