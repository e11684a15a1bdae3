/**
 * One conversation: loading it, asking, recovering from what can go wrong, handing over to a person.
 *
 * Each conversation owns its transcript, so an answer that is still streaming goes on in the
 * background when the customer looks at another conversation.
 *
 * The rule for failures: a text is always in one place where the customer can see it, the message
 * box or a bubble with a notice, until the server has answered it.
 */

import * as api from "./api.js";
import { announce } from "./dom.js";
import { fromAnswer } from "./message.js";
import { explain } from "./problems.js";
import { outbox } from "./store.js";
import { instant, sleep } from "./time.js";
import { Transcript } from "./transcript.js";

const STAGES = {
  sent: "Understanding your question…",
  analysis: "Finding the right articles…",
  passages: "Reading the articles…",
  resumed: "Picking up your answer…",
};
const INTERRUPTED = "This message was interrupted.";
const SLOW_AFTER_S = 15;
// How far the clocks of the server and this browser may differ.
const CLOCK_SKEW_MS = 120_000;
// Seconds between looks at a message that the server has and has not answered yet.
const LOOKS = [1, 2, 2, 3, 5, 5, 10, 10, 15, 15, 20];

/**
 * Fires "change" when its id, status or busy changes, "pause" and "restore" for the message
 * box, "acted" when the customer did something whose result is at the end of the transcript, "agent"
 * when a person of the desk has written.
 */
export class Conversation extends EventTarget {
  id;
  status = "new"; // then the server's: open, escalated, resolved
  busy = false; // an answer is on its way
  loading = false;
  transcript;

  /** @param {string|null} id null: a conversation that begins with its first message */
  constructor(id, actions) {
    super();
    this.id = id;
    this.transcript = new Transcript({ ...actions, rate: api.rate });
  }

  /** Show what the server has, then what it never got. @throws {api.Problem} */
  async open() {
    const items = this.id ? await this.#fetchFirst() : [];
    this.transcript.absorb(items);
    const last = items.findLast((item) => item.role === "customer");
    for (const { ticket, text, at } of outbox.takeLeftOver(this.id)) {
      const arrived = last?.content === text && instant(last.created_at) > at - CLOCK_SKEW_MS;
      if (arrived) outbox.remove(ticket);
      else this.#unsent(text, ticket);
    }
    if (last && last === items.at(-1) && last.state === "received") await this.#resume(last);
    else this.#markInterrupted(items);
  }

  /** Look for what others wrote: a person of the desk, or this customer in another tab. */
  async sync() {
    if (!this.id || this.busy) return;
    const items = await this.#fetch();
    if (this.busy) return;
    for (const item of this.transcript.absorb(items)) {
      if (item.role !== "agent") continue;
      announce(`Support team: ${item.content}`);
      this.dispatchEvent(new Event("agent"));
    }
  }

  /** @param {string} ticket of an earlier try, after which the server may have the message */
  async send(text, ticket = outbox.add(this.id, text)) {
    const question = this.transcript.add({ role: "customer", content: text });
    const answer = this.transcript.addLive(STAGES.sent);
    let accepted = false;
    let answered = false;
    this.dispatchEvent(new Event("acted"));
    announce(STAGES.sent);
    const slow = setTimeout(() => {
      if (!answer.message.text) answer.message.stage("Still working on it, thank you for waiting…");
    }, SLOW_AFTER_S * 1000);
    this.#set({ busy: true });
    try {
      for await (const { event, data } of api.ask(text, this.id, ticket)) {
        if (event === "analysis") {
          // From here on the server has the message: a reload would find it there.
          accepted = true;
          outbox.remove(ticket);
          this.#set({
            id: data.conversation_id,
            status: this.status === "new" ? "open" : this.status,
          });
        }
        if (event === "token") answer.message.append(data.text);
        else if (event === "answer") {
          // Read on to the end: to hang up now would look to the server like a customer who left.
          answered = true;
          outbox.remove(ticket);
          this.#answered(answer, data);
          this.#set({ busy: false });
        } else if (STAGES[event]) answer.message.stage(STAGES[event]);
      }
      if (!answered) throw new api.Problem({ code: "stream-ended" });
    } catch (error) {
      if (answered) return;
      const problem = asProblem(error);
      // A broken connection says nothing about the answer: the server may well finish it.
      if (accepted && problem.status === 0) await this.#settle(question, answer, text);
      else this.#failed({ question, answer, text, ticket, accepted, problem });
    } finally {
      clearTimeout(slow);
      // After an answer the next question may already be on its way, and busy is its own.
      if (!answered) this.#set({ busy: false });
    }
  }

  /** Ask for a person. @throws {api.Problem} */
  async escalate(reason) {
    const { case_reference: reference, response, message_id } = await api.escalate(this.id, reason);
    const named = !reference || response.includes(reference);
    const content = named ? response : `${response}\nYour case reference: ${reference}`;
    // First what the server stored before the handoff (the reason, as the customer's message).
    if (reason) await this.sync().catch(() => {});
    this.transcript.absorb([
      { id: message_id, role: "assistant", content, outcome: "handoff", escalated: true },
    ]);
    announce(`A person will take over. ${content}`);
    this.dispatchEvent(new Event("acted"));
    this.#set({ status: "escalated" });
  }

  /** Nothing can be sent meanwhile: the question would stand above the history. */
  async #fetchFirst() {
    this.#set({ loading: true });
    try {
      return await this.#fetch();
    } finally {
      this.#set({ loading: false });
    }
  }

  async #fetch() {
    const [items, list] = await Promise.all([api.messages(this.id), api.conversations()]);
    const escalated = items.some((item) => item.escalated) ? "escalated" : "open";
    this.#set({ status: list.find((each) => each.id === this.id)?.status ?? escalated });
    return withoutResent(items);
  }

  #answered(answer, data) {
    const item = fromAnswer(data);
    this.transcript.finish(answer, item);
    if (item.escalated) this.#set({ status: "escalated" });
    else if (this.status === "resolved") this.#set({ status: "open" });
    const count = item.citations?.length ?? 0;
    const sources = count
      ? ` ${count === 1 ? "1 source is" : `${count} sources are`} listed below it.`
      : "";
    announce(`${item.escalated ? "A person will take over. " : ""}${item.content}${sources}`);
  }

  /** A reload found a message the server is still working on. */
  async #resume(item) {
    const answer = this.transcript.addLive(STAGES.resumed);
    const question = this.transcript.find(item.id);
    this.#set({ busy: true });
    // Not awaited: the page is usable, and this may take as long as an answer takes.
    this.#settle(question, answer, item.content).finally(() => this.#set({ busy: false }));
  }

  /** Ask the server what became of a message it has; show the answer, or offer to send it again. */
  async #settle(question, answer, text) {
    if (!answer.message.text) answer.message.stage(STAGES.resumed);
    let lost = 0;
    for (const pause of LOOKS) {
      await sleep(pause);
      let items;
      try {
        items = await this.#fetch();
        lost = 0;
      } catch {
        lost += 1;
        if (lost > 3) break;
        continue;
      }
      const last = items.findLast((item) => item.role === "customer");
      if (last?.state === "received") continue;
      if (last?.state === "interrupted") break;
      this.transcript.remove(answer);
      for (const item of this.transcript.absorb(items)) announce(item.content);
      return;
    }
    this.#offerResend(question, this.#keepPartial(answer), text);
  }

  /** Only the newest message can be sent again: an older one has been talked past. */
  #markInterrupted(items) {
    const last = items.findLast((item) => item.role === "customer");
    if (!last) return;
    const since = items.slice(items.indexOf(last));
    const replies = since.slice(1);
    if (since.every((item) => item.state !== "interrupted")) return;
    if (replies.some((item) => item.state !== "interrupted")) return;
    const partial = replies.length ? this.transcript.find(replies.at(-1).id) : null;
    this.#offerResend(this.transcript.find(last.id), partial, last.content);
  }

  #offerResend(question, partial, text) {
    this.transcript.notice(partial ?? question, INTERRUPTED, [
      { label: "Send again", run: () => this.#again(question, partial, text) },
    ]);
  }

  #failed({ question, answer, text, ticket, accepted = false, problem }) {
    const partial = answer && this.#keepPartial(answer);
    const { text: words, remedy, wait } = explain(problem);
    if (wait) this.dispatchEvent(new CustomEvent("pause", { detail: wait }));
    const afresh = () => {
      outbox.remove(ticket);
      this.#again(question, partial, text);
    };
    // The same try once more: if the server has the message after all, it tells the answer it gave.
    const again = accepted ? afresh : () => this.#again(question, partial, text, ticket);
    const first = {
      retry: { label: "Try again", run: again },
      fresh: {
        label: "Send in a new conversation",
        run: () => {
          this.#set({ id: null, status: "new" });
          afresh();
        },
      },
      reload: { label: "Reload the page", run: () => location.reload() },
    }[remedy];
    const edit = {
      label: "Edit",
      run: () => {
        outbox.remove(ticket);
        this.transcript.remove(question);
        if (partial) this.transcript.remove(partial);
        this.dispatchEvent(new CustomEvent("restore", { detail: text }));
        this.#set({});
      },
    };
    this.transcript.notice(partial ?? question, words, [first, edit].filter(Boolean), wait);
  }

  /** A message from before the reload that the server never showed to have. */
  #unsent(text, ticket) {
    const question = this.transcript.add({ role: "customer", content: text });
    this.#failed({ question, text, ticket, problem: new api.Problem({ code: "left-over" }) });
  }

  /** What has arrived of a broken answer is worth reading; an empty one is not worth a bubble. */
  #keepPartial(answer) {
    if (answer.message.text) {
      answer.message.stop();
      answer.text = answer.message.text;
      return answer;
    }
    this.transcript.remove(answer);
    return null;
  }

  #again(question, partial, text, ticket = undefined) {
    if (this.busy) return;
    this.transcript.remove(question);
    if (partial) this.transcript.remove(partial);
    this.send(text, ticket);
  }

  #set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }
}

/** Leave out interrupted messages the customer has sent again: the second one has the answer. */
function withoutResent(items) {
  const questions = items.filter((item) => item.role === "customer");
  const resent = (item) => {
    const next = questions[questions.indexOf(item) + 1];
    return item.state === "interrupted" && next?.content === item.content;
  };
  return items.filter((item) => item.role !== "customer" || !resent(item));
}

/** An error of our own code must not look like the customer's network. */
function asProblem(error) {
  if (error instanceof api.Problem) return error;
  console.error(error);
  return new api.Problem({ status: 500, code: "page-error" });
}
