/** Where pictures and clips come from: addresses of this server, or blobs where a key is needed to fetch them. */

import { apiKey, download } from "./api.js";
import { make } from "./dom.js";
import { inputPath } from "./inputs.js";

/** Blob addresses by path; each content is fetched once. */
const fetched = new Map();

/** Return the address of an output's content. `variant` is that of the videos API. */
function contentPath(record, output, variant = "video") {
  if (record.object === "video") {
    if (output.is_uploaded && variant === "video") return `/playground/api/content/${record.id}/${output.index}`;
    return `/v1/videos/${record.id}/content?variant=${variant}&index=${output.index}`;
  }
  if (output.is_uploaded) return `/playground/api/content/${record.id}/${output.index}`;
  return `/v1/images/${record.id}/content?variant=${output.index}`;
}

/** Return an address that an element can load. */
async function sourceOf(path) {
  // An element sends no key, and what a storage has comes without ranges, which players need.
  if (!apiKey() && !path.startsWith("/playground/api/")) return path;
  if (!fetched.has(path)) fetched.set(path, download(path).then((blob) => URL.createObjectURL(blob)));
  try {
    return await fetched.get(path);
  } catch (error) {
    fetched.delete(path);
    throw error;
  }
}

/** Free what is kept of a job that is gone. */
export function forgetMedia(id) {
  for (const [path, address] of fetched) {
    if (!path.includes(id)) continue;
    fetched.delete(path);
    address.then((url) => URL.revokeObjectURL(url)).catch(() => {});
  }
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      entry.target.dispatchEvent(new Event("seen"));
    }
  },
  { rootMargin: "300px" },
);

/** Return a picture of an output that is fetched when it comes into view. */
export function still(record, output, alt) {
  const image = make("img", { alt, width: output.width, height: output.height, decoding: "async" });
  const path = contentPath(record, output, "thumbnail");
  const fail = () => image.replaceWith(make("span", { class: "missing", text: "No preview" }));
  image.addEventListener("error", fail);
  image.addEventListener("seen", () => load(image, path, fail));
  observer.observe(image);
  return image;
}

/** Return a picture, or a player for a clip. */
export function full(record, output, alt) {
  const path = contentPath(record, output);
  const size = { width: output.width, height: output.height };
  const element =
    record.object === "video"
      ? make("video", { ...size, controls: true, loop: true, playsinline: true, "aria-label": alt })
      : make("img", { ...size, alt });
  load(element, path, () => element.replaceWith(make("span", { class: "missing", text: "The file can not be loaded" })));
  return element;
}

/** Return a small picture of what a job started from. */
export function inputStill(record, input) {
  const name = input.role === "mask" ? "Mask" : "Image";
  const image = make("img", { alt: `${name} that it was made from`, title: name });
  load(image, inputPath(record.id, input), () => image.replaceWith(make("span", { class: "missing", text: `${name}: gone` })));
  return image;
}

async function load(element, path, fail) {
  try {
    element.src = await sourceOf(path);
  } catch {
    fail();
  }
}

/** Save an output as a file. */
export async function save(record, output) {
  const address = await sourceOf(contentPath(record, output));
  const extension = output.media_type.split("/")[1].replace("jpeg", "jpg");
  const link = make("a", { href: address, download: `${record.id}_${output.index}.${extension}` });
  document.body.append(link);
  link.click();
  link.remove();
}
