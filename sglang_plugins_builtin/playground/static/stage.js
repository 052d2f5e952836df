/** The job that is looked at: its progress and previews while it runs, then what came of it. */

import { ApiError, events } from "./api.js";
import { announce, find, make, sentence, showProblem, shownSeconds } from "./dom.js";
import { cancelJob, collection, shortPrompt, stageText, waitingText } from "./jobs.js";
import { full } from "./media.js";

const FOLLOWED = "followed-job";
const LONGEST_PAUSE_MS = 10_000;

export class Stage {
  /** `onOver(record)` is told when a job is over; `onOpen(record)` when its details are asked for. */
  constructor({ kind, onOver, onOpen }) {
    Object.assign(this, { kind, onOver, onOpen, id: null, controller: null, said: "" });
    find("cancel").addEventListener("click", () => this.cancel());
  }

  /** Return the id of the job that this tab followed before it was loaded again. */
  static remembered() {
    return sessionStorage.getItem(FOLLOWED);
  }

  /** Follow a job until it is over, also when the connection is lost in between. */
  async follow({ id, prompt, size }) {
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    this.id = id;
    this.prompt = prompt;
    sessionStorage.setItem(FOLLOWED, id);
    this.begin(size);
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        for await (const event of events(`${collection(this.kind)}/${id}/events`, signal)) {
          if (signal.aborted) return;
          failures = 0;
          if (event.record) return this.finish(event.record);
          this.show(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) return this.lose(error);
      }
      if (signal.aborted) return;
      find("progress-text").textContent = "The connection is lost; trying again";
      await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_PAUSE_MS, 500 * 2 ** failures)));
    }
  }

  begin(size) {
    const [width, height] = (size ?? "").split("x").map(Number);
    this.ratio = width && height ? `${width} / ${height}` : "1 / 1";
    this.said = "";
    showProblem("stage-problem", null);
    find("result-line").hidden = true;
    find("progress").hidden = false;
    find("cancel").removeAttribute("aria-disabled");
    find("progress-bar").removeAttribute("value");
    find("progress-text").textContent = "Sent";
    const waiting = make("div", { class: "waiting", "aria-hidden": "true" });
    waiting.style.aspectRatio = this.ratio;
    this.place(waiting);
  }

  place(...elements) {
    find("canvas").classList.toggle("several", elements.length > 1);
    find("canvas").replaceChildren(...elements);
  }

  show(event) {
    if (event.preview) this.showPreview(event.preview);
    const isQueued = event.state === "queued";
    if (!isQueued && event.stage === null && event.state === "in_progress" && this.said) return;
    const text = isQueued ? waitingText(event) : stageText(event);
    find("progress-text").textContent = text;
    if (isQueued) find("progress-bar").removeAttribute("value");
    else find("progress-bar").value = event.progress;
    // Each stage is said once, not each step.
    const said = isQueued ? text : text.split(",")[0];
    if (said !== this.said) announce(said);
    this.said = said;
  }

  showPreview({ media_type: type, b64_json: data }) {
    let image = find("canvas").querySelector("img.preview");
    if (!image) {
      image = make("img", { class: "preview", alt: `Preview of: ${this.prompt}` });
      image.style.aspectRatio = this.ratio;
      this.place(image);
    }
    image.src = `data:${type};base64,${data}`;
  }

  finish(record) {
    this.end();
    if (record.state === "completed") this.showOutputs(record);
    else if (record.state === "cancelled") this.place(make("p", { class: "empty", text: "Cancelled." }));
    else this.place(make("p", { class: "empty", text: "It failed." }));
    if (record.state === "failed") showProblem("stage-problem", record.error);
    else announce(record.state === "completed" ? "Finished" : "Cancelled");
    this.onOver(record);
  }

  /** Show what a job has made. */
  showOutputs(record) {
    this.shown = record.id;
    const alt = `Result of: ${record.prompt}`;
    this.place(...record.outputs.map((output) => this.figure(record, output, alt)));
    const [first] = record.outputs;
    const facts = [`${first.width} × ${first.height}`, `seed ${first.seed}`];
    if (record.object === "video") facts.splice(1, 0, `${first.num_frames} frames`);
    if (record.inference_time_s !== null) facts.push(shownSeconds(record.inference_time_s));
    const open = make("button", { class: "button small", type: "button", text: "Details" });
    open.addEventListener("click", () => this.onOpen(record));
    open.setAttribute("aria-label", `Details of: ${shortPrompt(record)}`);
    find("result-line").replaceChildren(make("span", { class: "muted", text: sentence(facts.join(" · ")) }), open);
    find("result-line").hidden = false;
  }

  figure(record, output, alt) {
    const element = full(record, output, alt);
    element.style.aspectRatio = `${output.width} / ${output.height}`;
    return element;
  }

  lose(error) {
    this.end();
    this.place(make("p", { class: "empty", text: "What you make appears here." }));
    // A job that somebody deleted meanwhile is no problem of whoever comes back to the page.
    if (error.status !== 404) showProblem("stage-problem", error);
  }

  end() {
    this.id = null;
    sessionStorage.removeItem(FOLLOWED);
    const hadFocus = find("progress").contains(document.activeElement);
    find("progress").hidden = true;
    if (hadFocus) find("generate").focus();
  }

  async cancel() {
    if (!this.id || find("cancel").getAttribute("aria-disabled")) return;
    find("cancel").setAttribute("aria-disabled", "true");
    try {
      await cancelJob(this.kind, this.id);
    } catch (error) {
      find("cancel").removeAttribute("aria-disabled");
      // It may have ended a moment before.
      if (error.code !== "already_over") showProblem("stage-problem", error);
    }
  }

  /** Take a deleted job off the stage. */
  clear(record) {
    if (this.id !== null || !find("canvas").querySelector("img, video")) return;
    if (this.shown !== record.id) return;
    find("result-line").hidden = true;
    this.place(make("p", { class: "empty", text: "What you make appears here." }));
  }
}
