/** The images that a job started from, which the server keeps as long as the job. */

import { call, download } from "./api.js";

/** The address of one of them. */
export const inputPath = (id, { index }) => `/playground/api/inputs/${id}/${index}`;

/** Return what there is: of each its `index`, its `role` (image, mask), and whether its file `is_there`. */
export async function describeInputs(record, signal = null) {
  // The record of a clip does not tell whether there was an image.
  if (record.object === "image" && record.operation !== "images.edits") return [];
  const { inputs } = await call(`/playground/api/inputs/${record.id}`, { signal });
  return inputs;
}

/** Return the images and the mask as files; all of them, or an error that says what is gone. */
export async function fetchInputs(record, signal) {
  const inputs = await describeInputs(record, signal);
  if (inputs.some((input) => !input.is_there)) throw new Error(goneText(inputs));
  const files = await Promise.all(inputs.map((input) => fetchFile(record.id, input, signal)));
  const ofRole = (role) => files.filter((_, index) => inputs[index].role === role);
  return { images: ofRole("image"), masks: ofRole("mask") };
}

async function fetchFile(id, input, signal) {
  const content = await download(inputPath(id, input), signal);
  const name = input.role === "mask" ? "mask" : `image ${input.index + 1}`;
  return new File([content], `${name}.${input.media_type.split("/")[1]}`, { type: input.media_type });
}

function goneText(inputs) {
  const [gone] = inputs.filter((input) => !input.is_there);
  const numImages = inputs.filter((input) => input.role === "image").length;
  const what = gone.role === "mask" ? "mask of the image" : numImages > 1 ? `image ${gone.index + 1} of ${numImages}` : "image";
  return `the ${what} that this was made from is gone from the server; choose it again to make the same`;
}
