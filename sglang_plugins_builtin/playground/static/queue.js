/** The jobs that run and wait, asked for again and again while the page is looked at. */

import { call } from "./api.js";
import { find, make, showProblem } from "./dom.js";
import { cancelJob, shortPrompt, stageText, waitingText } from "./jobs.js";

const BUSY_MS = 1500;
const IDLE_MS = 8000;

export class Queue {
  /** `onLeft(id)` is told when a job is no longer there; `onFollow(job)` when somebody wants to look at one. */
  constructor({ kind, followed, onLeft, onFollow }) {
    Object.assign(this, { kind, followed, onLeft, onFollow, items: new Map(), timer: null, isAsking: false });
    document.addEventListener("visibilitychange", () => this.soon());
  }

  /** Ask now, and go on from there. */
  async soon() {
    clearTimeout(this.timer);
    if (document.hidden || this.isAsking) return;
    this.isAsking = true;
    let pause = IDLE_MS;
    try {
      const answer = await call("/playground/api/queue");
      this.show(answer);
      showProblem("queue-problem", null);
      if (answer.num_queued + answer.num_running > 0) pause = BUSY_MS;
    } catch (error) {
      if (error.status === 401) return; // the page is loaded again with a key
      if (error.code !== "unreachable") showProblem("queue-problem", error);
    } finally {
      this.isAsking = false;
    }
    this.timer = setTimeout(() => this.soon(), pause);
  }

  show({ jobs, num_queued: numQueued, num_running: numRunning }) {
    const list = find("queue-list");
    for (const [id, item] of this.items) {
      if (jobs.some((job) => job.id === id)) continue;
      this.items.delete(id);
      if (item.contains(document.activeElement)) find("generate").focus();
      item.remove();
      this.onLeft(id);
    }
    jobs.forEach((job, index) => {
      if (!this.items.has(job.id)) this.items.set(job.id, this.makeItem(job));
      const item = this.items.get(job.id);
      item.querySelector(".state").textContent = stateText(job);
      item.querySelector(".follow").hidden = this.followed() === job.id;
      // Moving an element takes the focus from it, so only what is out of place is moved.
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    });
    const isOnlyFollowed = jobs.length === 1 && jobs[0].id === this.followed() && numQueued + numRunning === 1;
    find("queue").hidden = isOnlyFollowed || numQueued + numRunning === 0;
    find("queue-summary").textContent = `${numRunning} running, ${numQueued} waiting on this server`;
  }

  makeItem(job) {
    const prompt = shortPrompt(job);
    const follow = make("button", { class: "button small quiet follow", type: "button", text: "Show" });
    follow.setAttribute("aria-label", `Show: ${prompt}`);
    follow.addEventListener("click", () => this.onFollow(job));
    const cancel = make("button", { class: "button small quiet", type: "button", text: "Cancel" });
    cancel.setAttribute("aria-label", `Cancel: ${prompt}`);
    cancel.addEventListener("click", () => this.cancel(job));
    const words = [make("span", { class: "prompt", text: prompt }), make("span", { class: "state muted" })];
    return make("li", {}, make("div", { class: "queue-text" }, ...words), follow, cancel);
  }

  async cancel(job) {
    try {
      await cancelJob(this.kind, job.id);
    } catch (error) {
      if (error.code !== "already_over") showProblem("queue-problem", error);
    }
    this.soon();
  }
}

function stateText(job) {
  return job.state === "queued" ? waitingText(job) : `${stageText(job)}, ${job.progress} %`;
}
