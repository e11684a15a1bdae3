/**
 * The small menu of earlier conversations: a disclosure, not an ARIA menu, so that Tab and a
 * screen reader's usual keys work in it. Loaded when opened, because it is seldom needed.
 */

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { explain } from "./problems.js";
import { brief, instant } from "./time.js";

const STATUS = { escalated: "With a person", resolved: "Resolved" };

/**
 * @param {() => string|null} currentId
 * @param {(id: string) => void} choose
 */
export function wireMenu(currentId, choose) {
  const button = byId("conversations-button");
  const menu = byId("conversations-menu");

  button.addEventListener("click", () => (menu.hidden ? open() : close()));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || menu.hidden) return;
    close();
    button.focus();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!menu.hidden && !menu.parentElement.contains(event.target)) close();
  });
  menu.parentElement.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !menu.parentElement.contains(event.relatedTarget)) close();
  });

  function close() {
    menu.hidden = true;
    button.setAttribute("aria-expanded", "false");
  }

  async function open() {
    menu.hidden = false;
    button.setAttribute("aria-expanded", "true");
    say("Loading…");
    try {
      const items = await api.conversations();
      if (items.length) menu.replaceChildren(heading(), el("ul", {}, ...items.map(row)));
      else say("No earlier conversations yet.");
    } catch (problem) {
      say(explain(problem).text.split(". ")[0] + ".");
    }
  }

  function say(text) {
    menu.replaceChildren(heading(), el("p", { class: "menu-note", role: "status" }, text));
  }

  function row({ id, title, status, updated_at: updated }) {
    const date = instant(updated);
    const pick = () => {
      close();
      choose(id);
    };
    return el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          class: "menu-item",
          "aria-current": id === currentId() ? "true" : null,
          onclick: pick,
        },
        el("span", { class: "menu-title" }, title || "Conversation"),
        el(
          "span",
          { class: "menu-meta" },
          el("time", { datetime: date.toISOString() }, brief(date)),
          STATUS[status] ? el("span", { class: `state ${status}` }, STATUS[status]) : null,
        ),
      ),
    );
  }
}

const heading = () =>
  el("p", { class: "menu-heading", "aria-hidden": "true" }, "Earlier conversations");
