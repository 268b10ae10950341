// Calls of the public JSON API, with the key that the person gave for this session.
import { signal } from "./html.mjs";

const STORED = "sonde.key";

export const key = signal(sessionStorage.getItem(STORED) ?? "");
/** Why a key is asked for; empty while none is. */
export const keyProblem = signal("");
/** Whether the last call found no service. */
export const isUnreachable = signal(false);

/** An error answer of the service, or its absence (status 0). */
export class ApiError extends Error {
  constructor(status, message, code = "", param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

export function useKey(value) {
  sessionStorage.setItem(STORED, value);
  key.value = value;
  keyProblem.value = "";
}

export function forgetKey() {
  sessionStorage.removeItem(STORED);
  key.value = "";
  keyProblem.value = "Give the key that this page shall send.";
}

/**
 * The answer to a call: JSON, or what `as` says (`text`, `blob`). Throws ApiError.
 * `onProgress` is told the share of a form that has been sent, 0 to 1.
 */
export async function call(method, path, { json, form, headers = {}, as = "json", signal: aborted, onProgress } = {}) {
  const sent = { ...headers };
  const withKey = key.value;
  if (withKey) sent.authorization = `Bearer ${withKey}`;
  if (json !== undefined) sent["content-type"] = "application/json";
  let response;
  try {
    response = onProgress
      ? await upload(method, path, sent, form, onProgress)
      : await fetch(path, { method, headers: sent, body: form ?? (json && JSON.stringify(json)), signal: aborted });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    isUnreachable.value = true;
    throw new ApiError(0, "The service does not answer. The page tries again.", "unreachable");
  }
  isUnreachable.value = false;
  if (!response.ok) throw await toError(response, withKey);
  try {
    return await response[as]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(response.status, "The answer broke off, or it is not what the service sends.", "bad_answer");
  }
}

/** As `fetch`, which tells nothing of what it has sent. */
function upload(method, path, headers, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    Object.entries(headers).forEach(([name, value]) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onload = () => resolve(new Response(request.responseText, { status: request.status }));
    request.onerror = () => reject(new TypeError("no answer"));
    request.send(form);
  });
}

async function toError(response, withKey) {
  const { error, reason } = await response.json().catch(() => ({}));
  const about = typeof error === "string" ? { message: error } : (error ?? {});
  const message = about.message ?? reason ?? `The service answered ${response.status}.`;
  // A late answer to a call with an earlier key says nothing about this one.
  if (response.status === 401 && withKey === key.value) keyProblem.value = message;
  return new ApiError(response.status, message, about.code, about.param);
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, json, options) => call("POST", path, { json, ...options });
export const put = (path, json) => call("PUT", path, { json });
export const remove = (path) => call("DELETE", path);

/** A path's part, with slashes kept: routes of models take them. */
export const part = (name) => name.split("/").map(encodeURIComponent).join("/");
