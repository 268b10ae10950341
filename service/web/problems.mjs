// What is wrong with the service, in words.
import { growth, samples, total } from "./metrics.mjs";

/** `[{kind, message}]`, worst first. */
export function problems(first, last, { health, jobs, models }) {
  const grew = (name, wanted) => growth(first, last, name, wanted);
  const found = [];
  const say = (kind, holds, message) => holds && found.push({ kind, message });
  say("bad", health.status !== "ok", `The service takes no requests: ${health.reason}.`);
  say("bad", total(last, "sonde_keys_stale"), "The keys file cannot be read. The keys read before stay in force; see the log.");
  say("bad", total(last, "sonde_registry_problems"), "A trained model or an alias file cannot be followed; see its notes under Models and the log.");
  const faults = grew("sonde_requests_total", ({ status }) => Number(status) >= 500);
  say("bad", faults, `${faults} requests failed with 5xx in the last minutes. The log has each with its request id.`);
  const shed = grew("sonde_shed_total");
  say("warn", shed, `${shed} requests were refused because the queue was full. Send fewer at a time, or add processes.`);
  const late = grew("sonde_deadline_missed_total");
  say("warn", late, `${late} requests ran out of time.`);
  const refused = grew("sonde_quota_refusals_total");
  say("warn", refused, `${refused} jobs, files or feedback were refused by a quota.`);
  for (const { labels, value } of samples(last, "sonde_reload_failures_total"))
    say("warn", value, `A version of ${labels.model} failed to load ${value} times. The version before goes on serving.`);
  for (const { labels, value } of samples(last, "sonde_drift_detected"))
    say("warn", value, `The readings of ${labels.model} have drifted: its p-values no longer mean what they say. Train it again on newer readings.`);
  for (const one of samples(last, "sonde_batch_faults_total"))
    say("warn", grewOf(first, one), `Batches of ${one.labels.model} failed or were split (${one.labels.kind}).`);
  const waiting = jobs.find((job) => job.waiting);
  say("warn", waiting, `Jobs wait: ${waiting?.waiting}.`);
  for (const model of models)
    for (const note of model.notes.filter((one) => one.includes("cannot be followed"))) say("bad", true, `${model.id}: ${note}`);
  return found.sort((a, b) => Number(a.kind !== "bad") - Number(b.kind !== "bad"));
}

function grewOf(first, { labels, value }) {
  const before = samples(first, "sonde_batch_faults_total").find((one) => one.labels.model === labels.model && one.labels.kind === labels.kind);
  return value > (before?.value ?? 0);
}
