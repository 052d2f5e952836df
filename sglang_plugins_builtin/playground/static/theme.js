// Loaded before the page is drawn, so that a chosen theme does not flash by.
(() => {
  const stored = (() => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is blocked: the system's theme, then
    }
  })();
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();
