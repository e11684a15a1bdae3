/**
 * The list of one conversation: messages in order, a heading between days, and notices ("could
 * not be sent") under the message they are about.
 */

import { announce, el, icon } from "./dom.js";
import { AssistantMessage, agentMessage, customerMessage } from "./message.js";
import { countdown, day, duration, instant } from "./time.js";

export class Transcript {
  node = el("ol", { id: "transcript", class: "transcript", role: "list" });
  #actions;
  #entries = []; // {id, role, text, node} in the order shown
  #lastDay = "";

  /** @param {object} actions what the buttons of an answer do, see AssistantMessage */
  constructor(actions) {
    this.#actions = actions;
  }

  get empty() {
    return this.#entries.length === 0;
  }

  /** Show a message of the history. @returns the entry, for notice() and remove() */
  add(item) {
    if (item.role === "customer") return this.#enter(item, customerMessage(item));
    if (item.role === "agent") return this.#enter(item, agentMessage(item));
    const message = new AssistantMessage(this.#actions);
    message.finish(item);
    return this.#enter(item, message.node);
  }

  /** An answer that is on its way. @returns its entry; `entry.message` is the AssistantMessage */
  addLive(stage) {
    const message = new AssistantMessage(this.#actions);
    message.stage(stage);
    return Object.assign(this.#enter({ role: "assistant" }, message.node), { message });
  }

  finish(entry, item) {
    entry.id = item.id;
    entry.text = item.content;
    entry.message.finish(item);
  }

  /**
   * Show what the server has and the page has not; return the new entries' items. A message sent
   * from here has no id yet: it is recognised by its words or, should the server have tidied those,
   * by being the next one without an id.
   */
  absorb(items) {
    const free = new Set(this.#entries);
    const find = (test) => [...free].find(test);
    const fresh = [];
    for (const item of items) {
      const known =
        find((entry) => entry.id && entry.id === item.id) ??
        find((entry) => !entry.id && entry.role === item.role && entry.text === item.content) ??
        find(
          (entry) =>
            item.role === "customer" && entry.role === item.role && !entry.id && !entry.notice,
        );
      if (known) {
        known.id = item.id;
        free.delete(known);
      } else {
        this.add(item);
        fresh.push(item);
      }
    }
    return fresh;
  }

  find(id) {
    return this.#entries.find((entry) => entry.id === id);
  }

  remove(entry) {
    this.clearNotice(entry);
    entry.node.remove();
    this.#entries = this.#entries.filter((each) => each !== entry);
  }

  /**
   * Say under `entry` that something went wrong.
   * @param {{label: string, run: () => void}[]} choices buttons; the first waits for the countdown
   * @param {number} wait seconds until the first choice makes sense
   */
  notice(entry, text, choices, wait = 0) {
    this.clearNotice(entry);
    const clock = el("span", { class: "wait" });
    const buttons = choices.map(({ label, run }, index) =>
      el(
        "button",
        { type: "button", class: index ? "button" : "button primary retry", onclick: run },
        label,
      ),
    );
    entry.notice = el(
      "li",
      { class: "notice" },
      icon("alert"),
      el(
        "div",
        { class: "notice-body" },
        el("p", {}, text, clock),
        el("div", { class: "choices" }, ...buttons),
      ),
    );
    entry.node.after(entry.notice);
    if (!wait) {
      announce(text);
      return;
    }
    announce(`${text} You can try again in ${duration(wait)}.`);
    buttons[0].disabled = true;
    entry.stopClock = countdown(
      wait,
      (left) => (clock.textContent = ` You can try again in ${duration(left)}.`),
      () => {
        clock.textContent = " You can try again now.";
        buttons[0].disabled = false;
        announce("You can try again now.");
      },
    );
  }

  clearNotice(entry) {
    entry.stopClock?.();
    entry.notice?.remove();
    entry.notice = null;
  }

  #enter(item, node) {
    const heading = day(instant(item.created_at));
    if (heading !== this.#lastDay) this.node.append(el("li", { class: "day" }, heading));
    this.#lastDay = heading;
    this.node.append(node);
    const entry = { id: item.id, role: item.role, text: item.content, node };
    this.#entries.push(entry);
    return entry;
  }
}
