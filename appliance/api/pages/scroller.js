/**
 * Follows the newest message, unless the reader has scrolled up to read; then a button offers the
 * way back. It watches sizes, so the code that writes messages does not know that it exists.
 */

import { byId } from "./dom.js";

const NEAR_PX = 48;

export class Scroller {
  #view = byId("scroller");
  #jump = byId("jump");
  #following = true;
  #height = 0; // of the content and of the view, when they were last settled
  #room = 0;

  constructor() {
    this.#view.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#jump.addEventListener("click", () => {
      this.follow();
      this.#view.focus({ preventScroll: true });
    });
    const sizes = new ResizeObserver(() => this.#settle());
    sizes.observe(byId("content"));
    sizes.observe(this.#view);
  }

  /** Go to the newest message and stay with it. */
  follow() {
    this.#following = true;
    this.#settle();
  }

  #settle() {
    if (this.#following) this.#view.scrollTop = this.#view.scrollHeight;
    this.#height = this.#view.scrollHeight;
    this.#room = this.#view.clientHeight;
    this.#jump.hidden = this.#following || this.#distance() < NEAR_PX;
  }

  #scrolled() {
    // A move while sizes change is the layout's, not the reader's; #settle follows in this frame.
    if (this.#height !== this.#view.scrollHeight || this.#room !== this.#view.clientHeight) return;
    this.#following = this.#distance() < NEAR_PX;
    this.#jump.hidden = this.#following;
  }

  #distance() {
    return this.#view.scrollHeight - this.#view.scrollTop - this.#view.clientHeight;
  }
}
