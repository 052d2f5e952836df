/** What was made before, from the server's store of jobs. */

import { call } from "./api.js";
import { find, make, showProblem } from "./dom.js";
import { collection, isOver, shortPrompt } from "./jobs.js";
import { still } from "./media.js";

const PAGE = 24;

export class Gallery {
  constructor({ kind, onOpen }) {
    Object.assign(this, { kind, onOpen, tiles: new Map(), last: null });
    find("more").addEventListener("click", () => this.loadMore());
  }

  /** Add the next page, the newest jobs first. */
  async loadMore() {
    const after = this.last ? `&after=${this.last}` : "";
    try {
      const page = await call(`${collection(this.kind)}?limit=${PAGE}${after}`);
      showProblem("gallery-problem", null);
      this.last = page.last_id ?? this.last;
      const added = page.data.filter((record) => isOver(record) && !this.tiles.has(record.id));
      for (const record of added) find("gallery-list").append(this.makeTile(record));
      const hadFocus = document.activeElement === find("more");
      find("more").hidden = !page.has_more;
      if (hadFocus && added.length > 0) this.tiles.get(added[0].id).querySelector("button").focus();
    } catch (error) {
      showProblem("gallery-problem", error);
    }
    this.showEmptiness();
  }

  /** Put a job in front, or show how it is now. */
  add(record) {
    if (this.tiles.has(record.id)) return;
    find("gallery-list").prepend(this.makeTile(record));
    this.showEmptiness();
  }

  /** Put a job in front of which only the id is known; one that was deleted meanwhile is left out. */
  async addById(id) {
    if (this.tiles.has(id)) return;
    try {
      const record = await call(`${collection(this.kind)}/${id}`);
      if (isOver(record)) this.add(record);
    } catch (error) {
      if (error.status !== 404) showProblem("gallery-problem", error);
    }
  }

  remove(id) {
    const tile = this.tiles.get(id);
    const next = tile?.nextElementSibling ?? tile?.previousElementSibling;
    tile?.remove();
    this.tiles.delete(id);
    (next?.querySelector("button") ?? find("prompt")).focus();
    this.showEmptiness();
  }

  showEmptiness() {
    find("gallery-empty").hidden = this.tiles.size > 0 || !find("more").hidden || !find("gallery-problem").hidden;
  }

  makeTile(record) {
    const [first] = record.outputs;
    const picture = first
      ? still(record, first, "")
      : make("span", { class: "missing", text: record.state === "cancelled" ? "Cancelled" : "Failed" });
    const state = first ? "" : `${record.state}: `;
    const count = record.outputs.length > 1 ? make("span", { class: "count", text: record.outputs.length }) : null;
    const clip = first && record.object === "video" ? make("span", { class: "count", text: "▶ Clip" }) : null;
    const button = make(
      "button",
      { class: "tile", type: "button", "aria-label": `${state}${shortPrompt(record)}`, "aria-haspopup": "dialog" },
      make("span", { class: "frame" }, picture, count ?? clip),
      make("span", { class: "caption", text: record.prompt ?? "" }),
    );
    button.addEventListener("click", () => this.onOpen(record));
    const item = make("li", {}, button);
    this.tiles.set(record.id, item);
    return item;
  }
}
