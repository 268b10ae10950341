// Jobs: start one, watch it, and read its report.
import { get } from "../api.mjs";
import { html, useState } from "../html.mjs";
import { Job } from "../jobs/job.mjs";
import { NewJob } from "../jobs/new-job.mjs";
import { Status, isFinished } from "../jobs/status.mjs";
import { Button, Card, ErrorNotice, Loading, Table, plain, time, useEvery, useLoad } from "../parts/basics.mjs";
import { link, route } from "../route.mjs";

const PAGE = 25;

export default function Jobs() {
  const [id] = route.value.rest;
  return id ? html`<${Job} id=${id} key=${id} />` : html`<h1>Jobs</h1><${NewJob} /><${JobList} />`;
}

function JobList() {
  // The last id of each page before the shown one: the API goes forward alone.
  const [before, turn] = useState([]);
  const after = before.at(-1);
  const jobs = useLoad((aborted) => get(`v1/fine_tuning/jobs?limit=${PAGE}${after ? `&after=${after}` : ""}`, { signal: aborted }), [after]);
  const list = jobs.data?.data ?? [];
  useEvery(list.every(isFinished) ? 15 : 3, jobs.reload);
  const columns = [
    ["Job", (job) => html`<a href=${link("jobs", job.id)}>${plain(job.fine_tuned_model ?? job.id)}</a>`],
    ["Task", (job) => job.method.supervised.task],
    ["Begun", (job) => time(job.created_at)],
    ["State", (job) => html`<${Status} job=${job} />`],
    ["Result", (job) => plain(job.error?.message ?? job.waiting ?? (job.result ? `${job.result.decision}: ${job.result.why}` : "")).slice(0, 160)],
  ];
  return html`
    <${Card} title="All jobs">
      <${ErrorNotice} error=${jobs.error} />
      ${jobs.data ? html`<${Table} label="Jobs, newest first" columns=${columns} rows=${list} empty="No job yet. Drop a file above." />` : html`<${Loading} />`}
      <nav class="row" aria-label="Pages of jobs">
        ${before.length > 0 && html`<${Button} quiet onClick=${() => turn(before.slice(0, -1))}>Newer<//>`}
        ${jobs.data?.has_more && html`<${Button} quiet onClick=${() => turn([...before, list.at(-1).id])}>Older<//>`}
      </nav>
    <//>
  `;
}
