/** What concerns the page itself: the theme, the key of this tab, and how the server is. */

import { apiKey, setApiKey } from "./api.js";
import { find, showProblem } from "./dom.js";

const THEMES = ["automatic", "light", "dark"];
const HEALTH_WORDS = {
  ok: "Ready",
  starting: "Loading",
  restarting: "Restarting",
  failed: "Failed",
  degraded: "Degraded",
  stopping: "Stopping",
  unreachable: "Unreachable",
};
const READY_MS = 15_000;
const WAITING_MS = 2000;

export function startTheme() {
  const button = find("theme");
  const current = () => document.documentElement.dataset.theme ?? "automatic";
  const show = () => {
    button.setAttribute("aria-label", `Theme: ${current()}`);
    button.title = `Theme: ${current()}`;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length];
    if (next === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // Storage is blocked: the choice lasts as long as the page.
    }
    show();
  });
  show();
}

export function startKeyEntry() {
  const dialog = find("key-dialog");
  const open = (error) => {
    // Who comes for the first time has done nothing wrong. How programs send a key is nothing for people to read.
    const isWrong = error?.code === "invalid_api_key";
    find("key-needed").hidden = error === null || isWrong;
    showProblem("key-problem", isWrong ? new Error("the API key is not one of this server's.") : null);
    if (isWrong) find("open-key").textContent = "API key";
    if (dialog.open) return;
    dialog.showModal();
    find("key").focus();
  };
  find("open-key").addEventListener("click", () => open(null));
  window.addEventListener("key-needed", (event) => open(event.detail));
  find("close-key").addEventListener("click", () => dialog.close());
  find("forget-key").hidden = !apiKey();
  find("forget-key").addEventListener("click", () => use(null));
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = find("key").value.trim();
    if (key) use(key);
    else showProblem("key-problem", new Error("enter a key, or close this."));
  });
  if (apiKey()) find("open-key").textContent = "API key ✓";
}

/** Begin anew: everything on the page depends on whose key it is. */
function use(key) {
  setApiKey(key);
  location.reload();
}

/** A server without keys needs no place to enter one. */
export function showKeyEntry(document_) {
  find("open-key").hidden = !document_.security && !apiKey();
}

/** Show how the server is, for as long as the page is open; `onReady` is told each time it has become ready. */
export async function watchHealth(onReady) {
  let before = null;
  for (;;) {
    if (!document.hidden) {
      const { status, reason } = await health();
      const pill = find("health");
      if (status !== before) {
        pill.dataset.status = status;
        pill.textContent = HEALTH_WORDS[status] ?? status;
        if (status === "ok") onReady();
      }
      pill.title = reason ?? "";
      before = status;
    }
    await new Promise((resolve) => setTimeout(resolve, before === "ok" ? READY_MS : WAITING_MS));
  }
}

async function health() {
  try {
    return await (await fetch("/health")).json();
  } catch {
    return { status: "unreachable", reason: "the server does not answer" };
  }
}
