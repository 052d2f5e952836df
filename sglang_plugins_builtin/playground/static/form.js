/** The form: shows the fields, reads them, and takes over the settings of an earlier job. */

import { make, find, showProblem } from "./dom.js";
import { ImageField } from "./images.js";

const CUSTOM = "custom";
const OF_IMAGE = "image";
const MASK_HELP = "Transparent where the image is painted anew, or white where the file is opaque all over.";

export class SettingsForm {
  constructor(fields, sizing, card) {
    this.fields = fields;
    this.sizing = sizing;
    this.card = card;
    this.render();
  }

  render() {
    const main = this.fields.filter((field) => field.isMain);
    const texts = main.filter((field) => field.kind === "text");
    const values = main.filter((field) => field.kind !== "text");
    const more = this.fields.filter((field) => !field.isMain && !field.isOfImage);
    const grid = make("div", { class: "grid" }, ...this.sizeControls(), ...values.map((field) => this.control(field)));
    find("fields").replaceChildren(
      ...texts.map((field) => this.control(field)),
      make("p", { id: "inputs-loading", class: "muted", role: "status" }),
      make("div", { id: "inputs-problem", class: "problem", role: "alert", hidden: true }),
      ...(this.card.takes_images ? [this.imageControl(), this.imageOptions()] : []),
      grid,
      make(
        "details",
        { class: "more" },
        make("summary", { text: "More settings" }),
        make("div", { class: "grid" }, ...more.map((field) => this.control(field, true))),
      ),
    );
    find("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
    });
    for (const field of this.fields) this.set(field, field.initial);
    this.showCustomSize();
    this.showImageOptions();
  }

  control(field, isHelpShown = false) {
    const attributes = { id: field.name, name: field.name, "aria-describedby": `${field.name}-help` };
    const place = isHelpShown ? "help" : "visually-hidden";
    const help = make("p", { id: `${field.name}-help`, class: place, text: field.help });
    const isWide = field.kind === "text" || field.kind === "json" || field.isOfImage;
    const label = make("label", { for: field.name, text: field.label });
    return make("div", { class: isWide ? "field wide" : "field" }, label, makeInput(field, attributes), help);
  }

  sizeControls() {
    const { sizes, multiple } = this.sizing;
    const options = sizes.map((size, index) =>
      make("option", { value: index, text: `${size.width} × ${size.height} · ${size.label}` }),
    );
    const select = make(
      "select",
      { id: "size", onchange: () => this.showCustomSize() },
      ...options,
      ...(this.hasOwnSize() ? [make("option", { value: OF_IMAGE, text: "From the image" })] : []),
      make("option", { value: CUSTOM, text: "Other…" }),
    );
    const side = (name, label) =>
      make(
        "div",
        { class: "field custom-size", hidden: sizes.length > 0 },
        make("label", { for: name, text: label }),
        make("input", { id: name, type: "number", min: multiple, step: multiple, inputmode: "numeric" }),
      );
    const size = make("div", { class: "field wide" }, make("label", { for: "size", text: "Size" }), select);
    return [size, side("width", "Width"), side("height", "Height")];
  }

  /** Say whether a result has the size of the image it starts from, and another one without. */
  hasOwnSize() {
    return this.card.takes_images && this.card.output_kind === "image" && this.sizing.sizes.length > 0;
  }

  showCustomSize() {
    const isCustom = find("size").value === CUSTOM;
    for (const field of document.querySelectorAll(".custom-size")) {
      field.hidden = !isCustom;
      // What is hidden must not keep the form from being sent.
      field.querySelector("input").disabled = !isCustom;
    }
    const known = this.sizing.sizes[0];
    if (!isCustom || !known) return;
    find("width").value ||= known.width;
    find("height").value ||= known.height;
  }

  imageControl() {
    const isMany = this.card.output_kind === "image" && this.card.max_images !== 1;
    this.images = new ImageField({
      id: "image",
      label: isMany ? "Images to start from" : "Image to start from",
      noun: isMany ? "images" : "image",
      isMany,
      isRequired: this.card.needs_image,
      onChange: () => this.showImageOptions(),
    });
    return this.images.element;
  }

  /** Return what can be said about an image, shown once there is one. */
  imageOptions() {
    const controls = this.fields.filter((field) => field.isOfImage).map((field) => this.control(field, true));
    if (this.card.takes_mask) {
      this.mask = new ImageField({ id: "mask", label: "Mask of the image", noun: "mask", help: MASK_HELP });
      controls.unshift(this.mask.element);
    }
    return make("div", { id: "image-options", class: "grid", hidden: true }, ...controls);
  }

  showImageOptions() {
    if (!this.images) return;
    const hasImage = this.images.files.length > 0;
    find("image-options").hidden = !hasImage;
    if (hasImage) showProblem("inputs-problem", null);
    else if (this.mask?.files.length > 0) this.mask.files = [];
    if (!this.hasOwnSize()) return;
    const size = find("size");
    if (hasImage && size.value !== CUSTOM) size.value = OF_IMAGE;
    if (!hasImage && size.value === OF_IMAGE) size.selectedIndex = 0;
  }

  /** Return the JSON text of a request, and whether it starts from images. */
  async read() {
    const body = {};
    let seeds = randomSeed();
    const images = await Promise.all((this.images?.files ?? []).map(dataUrl));
    for (const field of this.fields) {
      if (field.isOfImage && images.length === 0) continue;
      const text = find(field.name).value.trim();
      if (text === "") continue;
      if (field.kind === "seeds") seeds = digits(text);
      else body[field.name] = valueOf(field, text);
    }
    const size = this.size();
    if (size) body.size = size;
    const isImage = this.card.output_kind === "image";
    if (images.length > 0) Object.assign(body, isImage ? { image: images } : { input_reference: images[0] });
    const [mask] = this.mask?.files ?? [];
    if (mask) body.mask = await dataUrl(mask);
    if (isImage) body.run_in_background = true;
    // Seeds go up to 2^63, more than a number here can hold: their digits are put in as they are.
    const text = JSON.stringify(body);
    return { body: `${text.slice(0, -1)},"seed":[${seeds}]}`, hasImages: images.length > 0 };
  }

  size() {
    const chosen = find("size").value;
    if (chosen === OF_IMAGE) return null;
    if (chosen !== CUSTOM) return `${this.sizing.sizes[chosen].width}x${this.sizing.sizes[chosen].height}`;
    const [width, height] = [find("width").value, find("height").value];
    return width && height ? `${width}x${height}` : null;
  }

  /** Take over the settings of a job; what it did not ask for becomes what it was planned with. */
  apply(record) {
    const { settings } = record;
    for (const field of this.fields) {
      let value = settings[field.name] ?? field.initial;
      if (field.kind === "seeds") value = (settings.seed ?? [record.outputs[0]?.seed ?? ""]).join(", ");
      if (field.kind === "json" && value) value = JSON.stringify(value, null, 2);
      this.set(field, value);
    }
    this.clearImages();
    this.applySize(record);
    this.clearProblem();
  }

  applySize({ settings, size }) {
    const isOfImage = this.images?.files.length > 0 && !settings.width && !settings.height;
    const [width, height] = size.split("x").map(Number);
    const { sizes } = this.sizing;
    const known = sizes.findIndex((one) => one.width === width && one.height === height);
    find("size").value = known >= 0 ? known : width || sizes.length === 0 ? CUSTOM : 0;
    if (isOfImage && this.hasOwnSize()) find("size").value = OF_IMAGE;
    else if (known < 0 && width) [find("width").value, find("height").value] = [width, height];
    this.showCustomSize();
  }

  /** Take over what a job started from, after its settings; what this model does not take is an error. */
  applyInputs(record, { images, masks }) {
    if (images.length > 0 && !this.images) throw new Error("this was made from an image, which this model does not take");
    if (masks.length > 0 && !this.mask) throw new Error("this was made with a mask, which this model does not take");
    if (images.length === 0) return;
    this.images.files = images;
    if (this.mask) this.mask.files = masks;
    this.applySize(record);
  }

  clearImages() {
    if (this.images) this.images.files = [];
    showProblem("inputs-problem", null);
  }

  reset() {
    for (const field of this.fields) this.set(field, field.initial);
    find("size").selectedIndex = 0;
    this.showCustomSize();
    this.clearImages();
    this.clearProblem();
  }

  set(field, value) {
    const control = find(field.name);
    control.value = value;
    // A value that is none of the choices leaves a list empty: the first stands for the default.
    if (field.kind === "choice" && control.selectedIndex < 0) control.selectedIndex = 0;
  }

  /** Show what the API says is wrong, at the field that it names. */
  showProblem(error) {
    showProblem("form-problem", error);
    const control = error.param ? find(error.param) : null;
    if (!control || !find("form").contains(control)) return;
    control.closest("details")?.setAttribute("open", "");
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }

  clearProblem() {
    showProblem("form-problem", null);
    for (const control of find("form").querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  }
}

function makeInput(field, attributes) {
  const required = { required: field.isRequired, maxlength: field.maxLength };
  if (field.kind === "text") return make("textarea", { ...attributes, ...required, rows: field.isRequired ? 4 : 2 });
  if (field.kind === "json") return make("textarea", { ...attributes, rows: 2, class: "code", spellcheck: "false" });
  if (field.kind === "choice") {
    const options = field.choices.map((choice) => make("option", { value: choice, text: choice }));
    if (field.initial === "") options.unshift(make("option", { value: "", text: "default" }));
    return make("select", attributes, ...options);
  }
  if (field.kind === "seeds") {
    const title = "Whole numbers, with commas between them";
    const checks = { pattern: "[0-9][0-9, ]*", title, maxlength: 220 };
    return make("input", { ...attributes, ...checks, type: "text", inputmode: "numeric", placeholder: "random" });
  }
  if (field.kind === "line") return make("input", { ...attributes, ...required, type: "text" });
  // Steps count from the minimum, so that frames are 1, 5, 9, ... where the model makes them in fours.
  const { min, max, step } = field;
  const placeholder = field.initial === "" ? "default" : null;
  return make("input", { ...attributes, type: "number", min, max, step, placeholder });
}

function valueOf(field, text) {
  if (field.kind === "integer" || field.kind === "number") return Number(text);
  if (field.kind !== "json") return text;
  try {
    return JSON.parse(text);
  } catch {
    throw Object.assign(new Error(`'${field.label}' is not JSON`), { param: field.name });
  }
}

/** Left to itself the server takes the same seed each time; who tries a model wants to see another result. */
function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

/** Return seeds as JSON has them: digits with commas between, without leading zeros. */
function digits(text) {
  const seeds = text.split(/[\s,]+/).filter(Boolean);
  return seeds.map((seed) => BigInt(seed).toString()).join(",");
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`'${file.name}' can not be read`));
    reader.readAsDataURL(file);
  });
}
