/** The page: asks the server what it has, and puts the parts together. */

import { call } from "./api.js";
import { Details } from "./details.js";
import { announce, find, showProblem } from "./dom.js";
import { describeFields, describeSizes } from "./fields.js";
import { SettingsForm } from "./form.js";
import { Gallery } from "./gallery.js";
import { fetchInputs } from "./inputs.js";
import { collection, isOver } from "./jobs.js";
import { Queue } from "./queue.js";
import { showKeyEntry, startKeyEntry, startTheme, watchHealth } from "./settings.js";
import { Stage } from "./stage.js";

/** What takes less is over before anybody has read that it is awaited. */
const SLOW_MS = 400;
const GONE = "this job is gone from the server, and the images that it may have started from with it";

class Playground {
  constructor(document_, card, limits) {
    const kind = card.output_kind;
    Object.assign(this, { card, kind, isSending: false, loading: null });
    this.form = new SettingsForm(describeFields(document_, card, limits), describeSizes(card, limits), card);
    this.gallery = new Gallery({ kind, onOpen: (record) => this.details.open(record) });
    this.stage = new Stage({
      kind,
      onOver: (record) => {
        this.gallery.add(record);
        this.queue.soon();
      },
      onOpen: (record) => this.details.open(record),
    });
    this.details = new Details({
      kind,
      onAgain: (record) => this.again(record),
      onDeleted: (record) => {
        this.gallery.remove(record.id);
        this.stage.clear(record);
        announce("Deleted");
      },
    });
    this.queue = new Queue({
      kind,
      followed: () => this.stage.id,
      onLeft: (id) => id !== this.stage.id && this.gallery.addById(id),
      onFollow: (job) => this.look(job),
    });
  }

  async start() {
    find("model-name").textContent = this.card.id;
    document.title = `Playground · ${this.card.id}`;
    find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.generate();
    });
    // A field that is folded away can not be pointed at.
    find("form").addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
    find("reset").addEventListener("click", () => {
      this.stopLoading();
      this.form.reset();
    });
    find("generate").disabled = false;
    this.gallery.loadMore();
    this.queue.soon();
    await this.resume();
  }

  /** Go on with the job that was followed before the page was loaded again. */
  async resume() {
    const id = Stage.remembered();
    if (!id) return;
    try {
      const record = await call(`${collection(this.kind)}/${id}`);
      if (isOver(record)) this.stage.finish(record);
      else this.stage.follow(record);
    } catch {
      this.stage.end(); // it is gone, which is no problem of this page
    }
  }

  async generate() {
    if (this.isSending) return;
    this.isSending = true;
    this.form.clearProblem();
    try {
      // Without the images that are on their way it would be another request.
      if (this.loading && !(await this.loading.isDone)) return;
      const { body, hasImages } = await this.form.read();
      const record = await call(this.address(hasImages), { method: "POST", body });
      this.stage.follow(record);
      scrollToStage();
      this.queue.soon();
    } catch (error) {
      this.form.showProblem(error);
    } finally {
      this.isSending = false;
    }
  }

  /** Follow a job of the queue. The button that asked for it goes, so the focus moves on to what is shown. */
  look(job) {
    this.stage.follow(job);
    find("cancel").focus({ preventScroll: true });
    scrollToStage();
    this.queue.soon();
  }

  address(hasImages) {
    if (this.kind === "video") return "/v1/videos";
    return hasImages ? "/v1/images/edits" : "/v1/images/generations";
  }

  /** Fill the form with what a job was asked for: its settings now, its images as soon as they are here. */
  async again(record) {
    this.stopLoading();
    this.form.apply(record);
    find("prompt").focus();
    const controller = new AbortController();
    const loading = (this.loading = { controller, isDone: this.loadInputs(record, controller.signal) });
    if (await loading.isDone) announce("The settings are in the form");
    if (this.loading === loading) this.loading = null;
  }

  /** Say whether the images that a job started from are in the form; if not the page says why. */
  async loadInputs(record, signal) {
    const showLoading = () => (find("inputs-loading").textContent = "Fetching its images");
    const timer = setTimeout(showLoading, SLOW_MS);
    try {
      this.form.applyInputs(record, await fetchInputs(record, signal));
      return true;
    } catch (error) {
      if (!signal.aborted) showProblem("inputs-problem", error.code === "job_not_found" ? new Error(GONE) : error);
      return false;
    } finally {
      clearTimeout(timer);
      if (!signal.aborted) find("inputs-loading").textContent = "";
    }
  }

  stopLoading() {
    this.loading?.controller.abort();
    this.loading = null;
    find("inputs-loading").textContent = "";
  }
}

function scrollToStage() {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  find("stage").scrollIntoView({ behavior, block: "nearest" });
}

let hasBegun = false;

/** Ask for what the page is made of; called again when the server has become ready, if it was not. */
async function begin() {
  if (hasBegun) return;
  hasBegun = true;
  try {
    const [document_, models, server] = await Promise.all([
      call("/openapi.json"),
      call("/v1/models"),
      call("/server_info"),
    ]);
    showProblem("form-problem", null);
    showKeyEntry(document_);
    await new Playground(document_, models.data[0], server.limits).start();
  } catch (error) {
    hasBegun = false;
    if (error.status !== 401) showProblem("form-problem", error);
    else find("canvas").querySelector(".empty").textContent = "Enter an API key to begin: the button is at the top.";
  }
}

startTheme();
startKeyEntry();
begin();
watchHealth(begin);
