/** What the form asks for, made of the server's OpenAPI document and of what the model says about itself. */

/** Of these the model must take the parameter of that name. */
const OF_THE_MODEL = [
  "negative_prompt",
  "num_inference_steps",
  "guidance_scale",
  "guidance_scale_2",
  "true_cfg_scale",
  "num_frames",
  "strength",
];
/** These mean nothing without an image to start from. */
const OF_AN_IMAGE = ["strength"];
const MAIN = [
  "prompt",
  "negative_prompt",
  "num_frames",
  "fps",
  "num_inference_steps",
  "guidance_scale",
  "seed",
  "n",
  "output_format",
];
/** Set by the page itself, shown as something else, or without a meaning for somebody who looks at a page. */
const NOT_ASKED_FOR = new Set([
  "model",
  "size",
  "width",
  "height",
  "seconds",
  "stream",
  "partial_images",
  "run_in_background",
  "response_format",
  "webhook_url",
  "user",
  "safety_identifier",
  "moderation",
  "background",
  "quality",
  "style",
  "input_fidelity",
  "image",
  "mask",
  "url",
  "input_reference",
  "reference_url",
  "extra_body",
  "extra_args",
  "extra_params",
  "extra_json",
]);
const LABELS = {
  negative_prompt: "Negative prompt",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  guidance_scale_2: "Guidance, low-noise expert",
  true_cfg_scale: "True guidance",
  num_frames: "Frames",
  strength: "Strength",
  fps: "Frames per second",
  n: "Outputs",
  output_format: "Format",
  output_quality: "Quality preset",
  output_compression: "Encoder quality",
  x264_preset: "H.264 preset",
  previews: "Previews while it runs",
  lora: "Adapters (JSON)",
  diffusers_kwargs: "Further pipeline arguments (JSON)",
};
const DEFAULT_PREVIEWS = 5;

/** Return what the schema says about the body of a request to this model. */
function requestSchema(document, card) {
  const ofImages = card.takes_images ? "ImageEditRequest" : "ImageGenerationRequest";
  return document.components.schemas[card.output_kind === "video" ? "VideoRequest" : ofImages];
}

/**
 * Return the fields of the form in their order.
 *
 * Each has `name`, `label`, `help`, `kind` (text, line, seeds, integer, number, choice, json), `isMain`, `initial`,
 * `isOfImage` and where they apply `min`, `max`, `step`, `choices`, `maxLength`.
 */
export function describeFields(document, card, limits) {
  const { properties } = requestSchema(document, card);
  const shown = Object.keys(properties).filter((name) => isShown(name, properties[name], card));
  const ordered = [...MAIN.filter((name) => shown.includes(name)), ...shown.filter((name) => !MAIN.includes(name))];
  return ordered.map((name) => describe(name, properties[name], card, limits));
}

function isShown(name, schema, card) {
  if (NOT_ASKED_FOR.has(name) || typesOf(schema).length === 0) return false;
  return !OF_THE_MODEL.includes(name) || card.parameters.includes(name);
}

function typesOf(schema) {
  const own = schema.type ?? (schema.anyOf ?? []).flatMap((one) => one.type ?? []);
  return [own].flat().filter((type) => type !== "null");
}

function describe(name, schema, card, limits) {
  const field = {
    name,
    label: LABELS[name] ?? humanised(name),
    help: helpOf(schema),
    isMain: MAIN.includes(name),
    isOfImage: OF_AN_IMAGE.includes(name),
    isRequired: name === "prompt",
    initial: initialOf(name, card),
    kind: kindOf(name, schema),
  };
  if (field.kind === "choice") {
    field.choices = schema.enum.filter((choice) => choice !== null && choice !== "jpg");
    if (name === "output_format") field.initial = field.choices[0];
  }
  if (field.kind === "integer" || field.kind === "number") Object.assign(field, boundsOf(name, schema, card, limits));
  field.maxLength = schema.maxLength ?? null;
  return field;
}

function kindOf(name, schema) {
  if (name === "seed") return "seeds";
  if (schema.enum) return "choice";
  const [type] = typesOf(schema);
  if (type === "object") return "json";
  if (type === "integer" || type === "number") return type;
  return name.endsWith("prompt") ? "text" : "line";
}

function boundsOf(name, schema, card, limits) {
  const limit = { num_inference_steps: limits.max_steps, n: limits.max_outputs, num_frames: limits.max_frames }[name];
  const max = Math.min(schema.maximum ?? Infinity, limit ?? Infinity);
  const step = name === "num_frames" ? (card.frames_step ?? 1) : schema.type.includes("integer") ? 1 : "any";
  return { min: schema.minimum ?? null, max: Number.isFinite(max) ? max : null, step };
}

function initialOf(name, card) {
  if (name === "n") return 1;
  if (name === "previews") return DEFAULT_PREVIEWS;
  if (name === "negative_prompt") return "";
  return card.defaults[name] ?? "";
}

function helpOf(schema) {
  const text = (schema.description ?? "").replace(/^Extension: /, "").replaceAll("`", "");
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

function humanised(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

const RATIOS = [
  ["Square", 1],
  ["Landscape 4:3", 4 / 3],
  ["Landscape 16:9", 16 / 9],
  ["Portrait 3:4", 3 / 4],
  ["Portrait 9:16", 9 / 16],
];

/** Return sizes with about as many pixels as the model's own, which comes first. */
export function describeSizes(card, limits) {
  const { width, height } = card.defaults;
  const multiple = card.multiple_of ?? 1;
  if (!width || !height) return { multiple, sizes: [] };
  const sizes = [{ label: "Model's own", width, height }];
  for (const [label, ratio] of RATIOS) {
    const wide = fitted(Math.sqrt(width * height * ratio), multiple);
    const high = fitted(Math.sqrt((width * height) / ratio), multiple);
    const isNew = sizes.every((size) => size.width !== wide || size.height !== high);
    if (isNew && wide * high <= (limits.max_pixels ?? Infinity)) sizes.push({ label, width: wide, height: high });
  }
  return { multiple, sizes };
}

function fitted(side, multiple) {
  return Math.max(1, Math.round(side / multiple)) * multiple;
}
