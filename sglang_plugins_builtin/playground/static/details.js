/** The dialog about one job: what it made, with which settings, its receipt, and what can be done with it. */

import { call } from "./api.js";
import { find, make, sentence, showProblem, shownBytes, shownSeconds } from "./dom.js";
import { describeInputs } from "./inputs.js";
import { collection } from "./jobs.js";
import { forgetMedia, full, inputStill, save } from "./media.js";

const NAMES = {
  negative_prompt: "Negative prompt",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  guidance_scale_2: "Guidance, low-noise expert",
  true_cfg_scale: "True guidance",
  strength: "Strength",
};

export class Details {
  constructor({ kind, onAgain, onDeleted }) {
    Object.assign(this, { kind, onAgain, onDeleted });
    this.dialog = find("details");
    find("close-details").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside the dialog, on what is behind it
    });
    // A clip does not go on in a dialog that is closed.
    this.dialog.addEventListener("close", () => find("details-body").replaceChildren());
  }

  async open(record) {
    const receipt = make("div", { class: "receipt" });
    const problem = make("div", { id: "details-problem", class: "problem", role: "alert", hidden: true });
    const facts = this.facts(record);
    find("details-body").replaceChildren(
      make("div", { class: "details-media" }, ...this.media(record)),
      make("div", { class: "details-text" }, facts, this.actions(record), problem, receipt),
    );
    this.dialog.showModal();
    await Promise.all([this.showInputs(record, facts), this.showReceipt(record, receipt)]);
  }

  media(record) {
    if (record.outputs.length === 0) {
      if (record.state !== "failed") return [make("p", { class: "empty", text: "It was cancelled." })];
      return [make("p", { class: "problem", text: sentence(record.error.message) })];
    }
    return record.outputs.map((output) => {
      const facts = `${output.width} × ${output.height} · seed ${output.seed} · ${shownBytes(output.num_bytes)}`;
      const button = make("button", { class: "button small", type: "button", text: "Download" });
      button.setAttribute("aria-label", `Download output ${output.index + 1}`);
      button.addEventListener("click", () => this.guarded(() => save(record, output)));
      const caption = make("figcaption", {}, make("span", { class: "muted", text: facts }), button);
      const problem = output.upload_error ? make("p", { class: "problem", text: output.upload_error }) : null;
      return make("figure", {}, full(record, output, `Result of: ${record.prompt}`), caption, problem);
    });
  }

  facts(record) {
    const { settings } = record;
    const entries = [["Prompt", record.prompt]];
    for (const [name, label] of Object.entries(NAMES)) entries.push([label, settings[name]]);
    entries.push(["Size", record.size.replace("x", " × ")]);
    if (record.object === "video") entries.push(["Length", `${record.num_frames} frames, ${record.fps} per second`]);
    entries.push(["Model", record.model], ["Made", new Date(record.created_at * 1000).toLocaleString()]);
    if (record.inference_time_s !== null) entries.push(["Time", shownSeconds(record.inference_time_s)]);
    const shown = entries.filter(([, value]) => value !== undefined && value !== null && String(value).trim() !== "");
    return make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
  }

  actions(record) {
    const again = make("button", { class: "button primary", type: "button", text: "Again with these settings" });
    again.addEventListener("click", () => {
      this.dialog.close();
      this.onAgain(record);
    });
    const remove = make("button", { class: "button quiet danger", type: "button", text: "Delete" });
    remove.addEventListener("click", () => {
      if (remove.textContent === "Delete") remove.textContent = "Delete for good";
      else this.guarded(() => this.remove(record));
    });
    remove.addEventListener("blur", () => (remove.textContent = "Delete"));
    return make("div", { class: "actions" }, again, remove);
  }

  async remove(record) {
    await call(`${collection(this.kind)}/${record.id}`, { method: "DELETE" });
    this.dialog.close();
    forgetMedia(record.id);
    this.onDeleted(record);
  }

  async showInputs(record, facts) {
    await this.guarded(async () => {
      const inputs = await describeInputs(record);
      if (inputs.length === 0) return;
      const pictures = inputs.map((input) => inputStill(record, input));
      facts.append(make("dt", { text: "Made from" }), make("dd", { class: "inputs" }, ...pictures));
    });
  }

  async showReceipt(record, place) {
    if (record.outputs.length === 0) return;
    await this.guarded(async () => {
      const { receipts } = await call(`/playground/api/receipts/${record.id}`);
      const text = JSON.stringify(receipts.length === 1 ? receipts[0] : receipts, null, 2);
      const pre = make("pre", { tabindex: 0, text, role: "region", "aria-label": "Receipt" });
      place.replaceChildren(make("details", {}, make("summary", { text: "Receipt" }), ...this.copyButton(text), pre));
    });
  }

  copyButton(text) {
    if (!navigator.clipboard) return []; // only pages on this machine or behind TLS have one
    const button = make("button", { class: "button small", type: "button", text: "Copy" });
    button.addEventListener("click", () =>
      this.guarded(async () => {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      }),
    );
    return [button];
  }

  async guarded(work) {
    try {
      await work();
    } catch (error) {
      if (find("details-problem")) showProblem("details-problem", error);
    }
  }
}
