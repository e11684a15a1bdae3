/**
 * Thumbs under an answer. A thumb is saved at once, so that a rating never depends on the comment;
 * a thumb down then offers a comment, which is sent as the same rating with words.
 */

import { announce, el, icon } from "./dom.js";
import { explain } from "./problems.js";

/**
 * @param {{id: string, rating: "up"|"down"|null}} item
 * @param {(id: string, rating: string, comment?: string) => Promise} rate
 * @returns {{buttons: HTMLElement, comment: HTMLElement}} two places of the message's footer
 */
export function thumbs(item, rate) {
  const up = thumb("up", "This answer helped");
  const down = thumb("down", "This answer did not help");
  const note = el("p", { class: "note", hidden: true });
  const field = el("textarea", { rows: 2, maxlength: 2000 });
  const form = el(
    "form",
    { class: "comment", hidden: true, "aria-label": "Comment on this answer", onsubmit: send },
    el("label", {}, el("span", {}, "What was wrong or missing? (optional)"), field),
    el(
      "div",
      { class: "comment-foot" },
      el("button", { type: "submit", class: "button primary" }, "Send comment"),
      el("button", { type: "button", class: "button", onclick: skip }, "Skip"),
    ),
  );
  let rating = item.rating ?? null;
  show(rating);

  function thumb(value, label) {
    return el(
      "button",
      {
        type: "button",
        class: `thumb ${value}`,
        "aria-pressed": "false",
        "aria-label": label,
        title: label,
        onclick: () => choose(value),
      },
      icon(`thumb-${value}`),
    );
  }

  function show(value) {
    up.setAttribute("aria-pressed", String(value === "up"));
    down.setAttribute("aria-pressed", String(value === "down"));
  }

  function say(text) {
    note.textContent = text;
    note.hidden = false;
    announce(text);
  }

  async function choose(value) {
    if (value === rating) {
      form.hidden = value !== "down" || !form.hidden;
      return;
    }
    show(value);
    form.hidden = value !== "down";
    note.hidden = true;
    try {
      await rate(item.id, value);
      rating = value;
      if (value === "up") say("Thank you for telling us.");
      else field.focus();
    } catch (problem) {
      show(rating);
      form.hidden = rating !== "down";
      say(`${cause(problem)} Please try the thumb again.`);
    }
  }

  async function send(event) {
    event.preventDefault();
    const words = field.value.trim();
    if (!words) return skip();
    try {
      await rate(item.id, "down", words);
      form.hidden = true;
      field.value = "";
      say("Thank you. Your comment helps us to do better.");
      down.focus();
    } catch (problem) {
      say(`${cause(problem)} Your comment is still here; please send it again.`);
    }
  }

  function skip() {
    form.hidden = true;
    down.focus();
    say("Thank you for telling us.");
  }

  return {
    buttons: el(
      "span",
      { class: "thumbs", role: "group", "aria-label": "Was this helpful?" },
      up,
      down,
    ),
    comment: el("div", { class: "after" }, form, note),
  };
}

const cause = (problem) => explain(problem).text.split(". ")[0].replace(/\.?$/, ".");
