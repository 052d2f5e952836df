/** Words about jobs, and the addresses of their endpoints. */

import { call } from "./api.js";
import { shownSeconds } from "./dom.js";

export const collection = (kind) => (kind === "video" ? "/v1/videos" : "/v1/images");

export const isOver = (record) => ["completed", "failed", "cancelled"].includes(record.state);

export const cancelJob = (kind, id) => call(`${collection(kind)}/${id}/cancel`, { method: "POST" });

const STAGES = {
  encode: "Reading the prompt",
  prepare: "Preparing",
  denoise: "Denoising",
  decode: "Decoding",
  save: "Saving",
};

/** Say where a job in the queue stands. */
export function waitingText({ queue_position: position, wait_s: wait }) {
  const place = !position ? "Next in the queue" : `${position} before it in the queue`;
  return wait >= 1 ? `${place}, about ${shownSeconds(wait)}` : place;
}

/** Say what a running job does. */
export function stageText({ state, stage, step, total_steps: total }) {
  if (state === "cancelling") return "Cancelling";
  const words = STAGES[stage] ?? (stage ? stage[0].toUpperCase() + stage.slice(1) : "Starting");
  return step && total > 1 ? `${words}, step ${step} of ${total}` : words;
}

/** Return a short name of a job for buttons and pictures. */
export function shortPrompt(record, length = 80) {
  const prompt = record.prompt || "without a prompt";
  return prompt.length > length ? `${prompt.slice(0, length - 1)}…` : prompt;
}
