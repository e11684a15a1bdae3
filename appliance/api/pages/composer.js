/**
 * The message box: grows with its text, keeps the draft across reloads, counts near the limit, and
 * never sends by accident (an Enter that finishes an input-method composition is not a send).
 */

import { announce, byId } from "./dom.js";
import { keepDraft, save } from "./store.js";
import { countdown, duration } from "./time.js";

const LIMIT = 8000;
const COUNT_FROM = 7000;
const NUMBER = new Intl.NumberFormat();

export class Composer {
  #field = byId("message");
  #button = byId("send");
  #hint = byId("composer-hint");
  #counter = byId("counter");
  #usualHint = [...byId("composer-hint").childNodes];
  #onSend;
  #busy = false;
  #wait = 0;
  #tooLong = false;

  /** @param {(text: string) => void} onSend called with a message that may be sent now */
  constructor(onSend) {
    this.#onSend = onSend;
    keepDraft(this.#field, "draft");
    this.#field.disabled = false;
    this.#field.addEventListener("input", () => this.#refresh());
    this.#field.addEventListener("keydown", (event) => this.#keydown(event));
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    // Wrapping changes with the width, and with it the height the text needs.
    new ResizeObserver(() => this.#grow()).observe(this.#field.parentElement);
    this.#refresh();
  }

  focus() {
    this.#field.focus();
  }

  /** While an answer is on its way the customer may type, but not send. */
  set busy(value) {
    this.#busy = value;
    this.#refresh();
  }

  /** The server asked for a pause: say so here, and count down. */
  pause(seconds) {
    countdown(
      seconds,
      (left) => {
        this.#wait = left;
        this.#refresh();
      },
      () => {
        this.#wait = 0;
        this.#refresh();
      },
    );
  }

  /** Give a text back to the customer; what was typed meanwhile stays, above it. */
  restore(text) {
    const typed = this.#field.value.trim();
    this.#set(typed ? `${typed}\n${text}` : text);
    this.focus();
  }

  #set(text) {
    this.#field.value = text;
    save("draft", text);
    this.#refresh();
  }

  #keydown(event) {
    // keyCode 229: Safari ends the composition before this event and reports isComposing false.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || event.shiftKey || event.altKey || composing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = this.#field.value.trim();
    if (!text) return;
    if (this.#busy || this.#wait || this.#tooLong) {
      announce(this.#reason());
      return;
    }
    this.#set("");
    this.focus();
    this.#onSend(text);
  }

  #reason() {
    if (this.#wait) return `You can send again in ${duration(this.#wait)}.`;
    if (this.#busy) return "One moment, your last message is being answered.";
    return "This message is too long to send.";
  }

  #refresh() {
    const text = this.#field.value;
    // The server counts characters, JavaScript counts UTF-16 units; only a long text is worth the walk.
    const length = text.length < COUNT_FROM ? text.length : [...text].length;
    const tooLong = length > LIMIT;
    if (tooLong && !this.#tooLong)
      announce(`Too long: the limit is ${NUMBER.format(LIMIT)} characters.`);
    this.#tooLong = tooLong;

    this.#counter.hidden = length < COUNT_FROM;
    this.#counter.classList.toggle("over", tooLong);
    this.#counter.textContent = tooLong
      ? `${NUMBER.format(length - LIMIT)} characters too many`
      : `${NUMBER.format(length)} of ${NUMBER.format(LIMIT)}`;
    this.#field.setAttribute("aria-invalid", String(tooLong));

    const held = text.trim() !== "" && (this.#busy || this.#wait > 0);
    this.#hint.replaceChildren(...(held ? [this.#reason()] : this.#usualHint));
    this.#button.disabled = !text.trim() || this.#busy || this.#wait > 0 || tooLong;
    this.#grow();
  }

  /** As high as its text; CSS sets the largest height. */
  #grow() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }
}
