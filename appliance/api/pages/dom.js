/**
 * Building and finding elements. Text reaches the page only as text nodes: there is no innerHTML
 * anywhere, so neither a customer nor an article can put markup on the page.
 */

const SVG = "http://www.w3.org/2000/svg";

/** @returns {HTMLElement} the element of the page with this id */
export const byId = (id) => document.getElementById(id);

/**
 * el("button", {class: "x", onclick: f}, "text", child…). A property that is null, undefined or
 * false is left out; true becomes an empty attribute; a function is a listener.
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An icon of the sprite in chat.html; decoration only, the text beside it carries the meaning. */
export function icon(name, className = "icon") {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Text that only screen readers get. */
export const unseen = (text) => el("span", { class: "visually-hidden" }, text);

/** Say `text` once through the polite live region, then clear it so that nobody reads it twice. */
export function announce(text) {
  const line = el("p", {}, text);
  byId("announcer").append(line);
  setTimeout(() => line.remove(), 20_000);
}
