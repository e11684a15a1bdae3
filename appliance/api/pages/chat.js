/**
 * The customer's chat page: which conversation is shown, and the wiring between the message box,
 * the transcript and the header. Start here; each import is one part of the page.
 */

import * as api from "./api.js";
import { openArticle, remember } from "./article.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, el, icon } from "./dom.js";
import { wireMenu } from "./menu.js";
import { wirePerson } from "./person.js";
import { explain } from "./problems.js";
import { Scroller } from "./scroller.js";
import { load, save } from "./store.js";

const LOOK_FOR_REPLIES_MS = 12_000;
const KNOCK_MS = 10_000;
const BANNER = {
  escalated:
    "A person will take over this conversation. You can keep writing here; they will read it all.",
  resolved: "This conversation was marked as resolved. Write again if you still need help.",
};

const chat = byId("chat");
const scroller = new Scroller();
const opened = []; // conversations of this page view: an answer in flight survives looking elsewhere
let current = null;
let visitor = null;
let reachable = null; // null until the first request has come back

const composer = new Composer((text) => current.send(text));
const actions = {
  openArticle,
  remember,
  talkToPerson: wirePerson(() => current),
};

function show(conversation) {
  current = conversation;
  byId("transcript").replaceWith(conversation.transcript.node);
  refresh();
  scroller.follow();
}

function create(id) {
  const conversation = new Conversation(id, actions);
  conversation.addEventListener("change", () => {
    if (conversation === current) refresh();
  });
  conversation.addEventListener("acted", () => {
    if (conversation === current) scroller.follow();
  });
  conversation.addEventListener("pause", (event) => composer.pause(event.detail));
  conversation.addEventListener("restore", (event) => composer.restore(event.detail));
  conversation.addEventListener("agent", () => {
    if (document.hidden) document.title = `New reply · ${byId("desk-name").textContent}`;
  });
  opened.push(conversation);
  return conversation;
}

/** Everything outside the transcript that depends on the conversation shown. */
function refresh() {
  const { id, status, busy, loading, transcript } = current;
  if (visitor) save("conversation", id ? { id, visitor } : null);
  chat.dataset.status = status;
  composer.busy = busy || loading;
  byId("welcome").hidden = !transcript.empty || id !== null;
  byId("banner").hidden = !BANNER[status];
  byId("banner-text").textContent = BANNER[status] ?? "";
  showStatus();
}

function showStatus() {
  const line = byId("desk-status");
  const [state, words] =
    reachable === false
      ? ["unreachable", "Not reachable, trying again…"]
      : reachable === null
        ? ["connecting", "Connecting…"]
        : current?.busy
          ? ["online", "Answering…"]
          : current?.status === "escalated"
            ? ["person", "With our team"]
            : ["online", "Online"];
  line.dataset.state = state;
  if (line.textContent !== words) line.textContent = words;
}

/** Go to a conversation; where it cannot be loaded, say so and offer to try again. */
async function go(id) {
  const before = opened.find((each) => each.id === id);
  if (before) {
    show(before);
    await before.sync().catch(() => {});
    return;
  }
  const conversation = create(id);
  show(conversation);
  const loading = el("p", { class: "loading", role: "status" }, "Loading the conversation…");
  conversation.transcript.node.before(loading);
  try {
    await conversation.open();
    scroller.follow();
    refresh();
  } catch (problem) {
    opened.splice(opened.indexOf(conversation), 1);
    if (current !== conversation) return;
    // Gone, or of another visitor: there is nothing to try again, so begin anew.
    if (problem.status === 404) fresh();
    else trouble(problem, () => go(id));
  } finally {
    loading.remove();
  }
}

function fresh() {
  const conversation = create(null);
  show(conversation);
  conversation.open().then(refresh);
}

/** The page itself could not get what it needs. */
function trouble(problem, again) {
  const { text, remedy } = explain(problem);
  const run = () => {
    note.remove();
    if (remedy === "reload") location.reload();
    else again();
  };
  const note = el(
    "div",
    { class: "notice page", role: "alert" },
    icon("alert"),
    el(
      "div",
      { class: "notice-body" },
      el("p", {}, text.replace(" Your message is safe here.", "")),
      el(
        "button",
        { type: "button", class: "button primary retry", onclick: run },
        remedy === "reload" ? "Reload the page" : "Try again",
      ),
    ),
  );
  byId("content").append(note);
}

async function start() {
  try {
    const session = await api.session();
    visitor = session.user_id;
    const name = session.product || "Support";
    byId("desk-name").textContent = name;
    document.title = name;
    byId("suggestions").replaceChildren(...(session.suggestions ?? []).map(suggestion));
    document.addEventListener("visibilitychange", () => (document.title = name));
    const kept = load("conversation");
    // A conversation of another visitor (the cookie has changed) would only answer 404.
    if (current.id === null && current.transcript.empty && kept?.visitor === visitor)
      await go(kept.id);
    else if (!current.busy) await current.open().then(refresh);
  } catch (problem) {
    trouble(problem, start);
  }
}

function suggestion(question) {
  const ask = () => current.busy || current.send(question);
  return el("button", { type: "button", class: "button", onclick: ask }, question);
}

api.connection.addEventListener("reachable", () => {
  reachable = true;
  showStatus();
});
api.connection.addEventListener("unreachable", () => {
  reachable = false;
  showStatus();
});
addEventListener("online", api.knock);
setInterval(() => reachable === false && api.knock(), KNOCK_MS);

// People answer minutes or hours later; nothing pushes to this page, so it looks now and then.
const look = () => {
  if (!document.hidden && current.status === "escalated") current.sync().catch(() => {});
};
setInterval(look, LOOK_FOR_REPLIES_MS);
document.addEventListener("visibilitychange", look);

byId("new-conversation").addEventListener("click", () => {
  fresh();
  composer.focus();
});
wireMenu(() => current.id, go);

show(create(null));
// On a touch screen focus would open the keyboard over the page.
if (matchMedia("(pointer: fine)").matches) composer.focus();
start();
