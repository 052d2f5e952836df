"""What a browser's own accessibility tree and styles say of a page."""

_CONTROLS = {
    "button", "textbox", "combobox", "spinbutton", "link", "progressbar", "checkbox", "DisclosureTriangle", "dialog",
    "form", "region", "searchbox", "slider", "listbox", "Video",
}  # fmt: skip

#: Texts whose contrast to what is behind them is below that of WCAG 2, level AA (4.5), as ``text: ratio``.
CONTRAST_PROBLEMS = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (rgba(color)[3] > 127) return color;
    }
    return "white";
  };
  const problems = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility()) continue;
    if (element.closest(".visually-hidden, noscript, option, :disabled")) continue;
    const [high, low] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) problems.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return problems;
}"""


def unnamed(page):
    """Return the controls and landmarks that a screen reader has no name for."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    found = [
        node for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in _CONTROLS
        and not node.get("name", {}).get("value", "").strip()
    ]  # fmt: skip
    assert len(nodes) > 50
    return [(node["role"]["value"], node.get("backendDOMNodeId")) for node in found]
