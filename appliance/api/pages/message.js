/**
 * One message as DOM: the customer's, the assistant's (while it streams and when it is finished),
 * and a human agent's. An answer of the stream and a message of the history look the same here.
 */

import { el, icon, unseen } from "./dom.js";
import { thumbs } from "./feedback.js";
import { clock, instant } from "./time.js";

const RELATED = 3;
const MOODS = new Set(["Positive", "Neutral", "Negative", "Angry"]);

/** The `answer` event in the shape of a message of the history. */
export function fromAnswer(answer) {
  const { metadata = {} } = answer;
  return {
    id: answer.message_id,
    role: "assistant",
    content: answer.response,
    created_at: answer.timestamp,
    category: answer.category,
    sentiment: answer.sentiment,
    outcome: metadata.outcome,
    escalated: metadata.escalated,
    citations: metadata.citations,
    kb_results: metadata.kb_results,
    remote: metadata.remote,
    rating: null,
  };
}

export function customerMessage({ content, created_at }) {
  return el(
    "li",
    { class: "message customer" },
    el(
      "div",
      { class: "body" },
      el("div", { class: "bubble" }, unseen("You: "), el("div", { class: "text" }, content)),
      el("div", { class: "meta" }, time(created_at)),
    ),
  );
}

export function agentMessage({ content, created_at }) {
  return el(
    "li",
    { class: "message agent" },
    el("span", { class: "avatar" }, icon("person")),
    el(
      "div",
      { class: "body" },
      el(
        "div",
        { class: "bubble" },
        el("p", { class: "speaker" }, "Support team"),
        el("div", { class: "text" }, content),
      ),
      el("div", { class: "meta" }, time(created_at)),
    ),
  );
}

/**
 * The assistant's message. It starts as a calm line that names the stage, fills with text, and
 * gets its chips, sources and thumbs when it is finished.
 */
export class AssistantMessage {
  #actions;
  #stage = el("p", { class: "stage" });
  #text = document.createTextNode("");
  #words = el("div", { class: "text", hidden: true }, this.#text);
  #bubble = el("div", { class: "bubble" }, unseen("Assistant: "), this.#stage, this.#words);
  #body = el("div", { class: "body" }, this.#bubble);
  node = el(
    "li",
    { class: "message assistant" },
    el("span", { class: "avatar" }, icon("desk", "brand")),
    this.#body,
  );

  /** @param {{openArticle, remember, rate, talkToPerson}} actions what its buttons do */
  constructor(actions) {
    this.#actions = actions;
  }

  get text() {
    return this.#text.data;
  }

  stage(words) {
    this.node.classList.add("thinking");
    this.#stage.replaceChildren(
      el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")),
      words,
    );
  }

  append(text) {
    this.node.classList.replace("thinking", "streaming");
    this.#stage.hidden = true;
    this.#words.hidden = false;
    this.#text.appendData(text);
  }

  /** The stream broke: what has arrived stays, without the sign that more is coming. */
  stop() {
    this.node.classList.remove("thinking", "streaming");
  }

  finish(item) {
    this.stop();
    this.#actions.remember(item.kb_results ?? []);
    this.#stage.remove();
    this.#words.hidden = false;
    this.#text.data = (item.content ?? "").trim();
    this.node.dataset.messageId = item.id ?? "";
    this.node.dataset.outcome = item.outcome ?? "";
    const handoff = item.outcome === "handoff" || item.escalated;
    if (handoff) {
      this.node.classList.add("handoff");
      this.#words.before(el("p", { class: "speaker" }, icon("person"), "A person will take over"));
    }
    this.#body.append(
      ...[
        this.#sources(item.citations ?? []),
        this.#related(item),
        this.#offer(item),
        this.#meta(item),
      ].filter(Boolean),
    );
    // A handoff is not an answer, so there is nothing to rate.
    if (item.id && !handoff) {
      const { buttons, comment } = thumbs(item, this.#actions.rate);
      this.#body.lastElementChild.append(buttons);
      this.#body.append(comment);
    }
  }

  #sources(citations) {
    if (!citations.length) return null;
    return el(
      "ul",
      { class: "sources", "aria-label": "Sources of this answer" },
      ...citations.map((each) =>
        el("li", {}, this.#articleButton(each, "citation", `Source: ${each.title}`)),
      ),
    );
  }

  /** Articles that came close, where there was no answer: folded, because they may well not help. */
  #related(item) {
    const close = (item.kb_results ?? []).slice(0, RELATED);
    if (!["abstained", "handoff"].includes(item.outcome) || item.citations?.length || !close.length)
      return null;
    return el(
      "details",
      { class: "related" },
      el("summary", {}, "Related articles"),
      el(
        "ul",
        { class: "sources" },
        ...close.map((each) => el("li", {}, this.#articleButton(each, "suggestion", each.title))),
      ),
    );
  }

  /** Hidden by CSS once the conversation is with a person. */
  #offer(item) {
    if (!["abstained", "handoff"].includes(item.outcome) || item.escalated) return null;
    return el(
      "button",
      { type: "button", class: "button offer", onclick: () => this.#actions.talkToPerson() },
      icon("person"),
      "Talk to a person",
    );
  }

  #meta({ category, sentiment, created_at, remote }) {
    const mood = MOODS.has(sentiment) ? sentiment.toLowerCase() : "neutral";
    return el(
      "div",
      { class: "meta" },
      time(created_at),
      category && el("span", { class: "chip category" }, unseen("Topic: "), category),
      sentiment && el("span", { class: `chip mood ${mood}` }, unseen("Mood: "), sentiment),
      remote ? el("span", { class: "remote" }, "Written with a remote model") : null,
    );
  }

  #articleButton(article, className, label) {
    const open = (event) => this.#actions.openArticle(article, event.currentTarget);
    return el(
      "button",
      { type: "button", class: className, "data-article-id": article.id, onclick: open },
      icon("article"),
      el("span", {}, label),
    );
  }
}

function time(value) {
  const date = instant(value);
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, clock(date));
}
