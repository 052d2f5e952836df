/** A field for images: a file input, and what is chosen as thumbnails that can be taken out one by one. */

import { announce, make, shownBytes } from "./dom.js";

const PICTURES = "image/png,image/jpeg,image/webp,image/gif";

export class ImageField {
  /** `noun` is what it holds; `onChange()` is told when that are others than before. */
  constructor({ id, label, noun, help = null, isMany = false, isRequired = false, onChange = () => {} }) {
    this.onChange = onChange;
    this.input = make("input", {
      id,
      type: "file",
      accept: PICTURES,
      multiple: isMany,
      required: isRequired,
      "aria-describedby": help ? `${id}-help` : null,
      onchange: () => this.changed(),
    });
    this.list = make("ul", { class: "chosen", "aria-label": `Chosen ${noun}`, hidden: true });
    this.element = make(
      "div",
      { class: "field wide" },
      make("label", { for: id, text: label }),
      this.input,
      this.list,
      help ? make("p", { id: `${id}-help`, class: "help", text: help }) : null,
    );
  }

  get files() {
    return [...this.input.files];
  }

  /** Put other files in, as if they had been chosen. */
  set files(files) {
    const chosen = new DataTransfer();
    for (const file of files) chosen.items.add(file);
    this.input.files = chosen.files;
    this.changed();
  }

  changed() {
    for (const { src } of this.list.querySelectorAll("img")) URL.revokeObjectURL(src);
    this.list.replaceChildren(...this.files.map((file) => this.item(file)));
    this.list.hidden = this.files.length === 0;
    this.input.removeAttribute("aria-invalid");
    this.onChange();
  }

  item(file) {
    const facts = make("span", { class: "muted", text: shownBytes(file.size) });
    const image = make("img", { alt: "", src: URL.createObjectURL(file) });
    image.addEventListener("load", () => facts.prepend(`${image.naturalWidth} × ${image.naturalHeight} · `));
    image.addEventListener("error", () => image.replaceWith(make("span", { class: "unreadable", text: "?", "aria-hidden": "true" })));
    const remove = make("button", { class: "button small quiet", type: "button", text: "Remove" });
    remove.setAttribute("aria-label", `Remove ${file.name}`);
    remove.addEventListener("click", () => this.remove(file));
    const words = make("span", { class: "chosen-text" }, make("span", { class: "name", text: file.name }), facts);
    return make("li", {}, image, words, remove);
  }

  remove(file) {
    const index = this.files.indexOf(file);
    this.files = this.files.filter((other) => other !== file);
    announce(`Removed ${file.name}`);
    const next = this.list.children[Math.min(index, this.files.length - 1)];
    (next?.querySelector("button") ?? this.input).focus();
  }
}
