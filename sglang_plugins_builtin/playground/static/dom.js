/** Building and finding elements. Text always goes in as text, never as HTML. */

export const find = (id) => document.getElementById(id);

/** Make an element: attributes by name, `text`, listeners as `onclick` and the like, then its children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Show an error in a region that screen readers announce; `null` takes it away. */
export function showProblem(id, error) {
  const region = find(id);
  region.hidden = error === null;
  region.textContent = error === null ? "" : sentence(error.message ?? String(error));
}

/** Begin a text with a capital letter, unless it begins with the name of a field. */
export function sentence(text) {
  return /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

/** Tell screen readers what everybody else sees. */
export function announce(text) {
  find("announcer").textContent = text;
}

/** Return a time in words. The space before a unit is one at which no line is broken. */
export function shownSeconds(seconds) {
  if (seconds < 1) return "under a second";
  if (seconds < 90) return `${Math.round(seconds)}\u00a0s`;
  return `${Math.round(seconds / 60)}\u00a0min`;
}

export function shownBytes(count) {
  if (count < 1024) return `${count}\u00a0B`;
  return count < 1024 ** 2 ? `${(count / 1024).toFixed(1)}\u00a0KiB` : `${(count / 1024 ** 2).toFixed(1)}\u00a0MiB`;
}
