/**
 * "Talk to a person". From the header it asks first, because one stray click must not wake a desk
 * agent; the button offered under an answer acts at once, because there the wish is plain.
 */

import { wireDialog } from "./article.js";
import { byId } from "./dom.js";
import { explain } from "./problems.js";
import { keepDraft, save } from "./store.js";
import { countdown, duration } from "./time.js";

const dialog = byId("person-dialog");
const text = byId("person-text");
const note = byId("person-note");
const error = byId("person-error");
const submit = byId("person-submit");

const ASK = "I would like to talk to a person: ";

/**
 * @param {() => import("./conversation.js").Conversation} current
 * @returns {() => void} what the button under an answer does
 */
export function wirePerson(current) {
  const opener = byId("talk-to-person");
  wireDialog(dialog);
  keepDraft(note, "note");
  note.addEventListener("input", () => (error.hidden = true));
  opener.addEventListener("click", () => open());
  dialog.addEventListener("close", () => opener.focus());
  byId("person-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(note.value.trim());
  });

  function open() {
    const { id, status } = current();
    const waiting = status === "escalated";
    byId("person-title").textContent = waiting ? "A person will take over" : "Talk to a person";
    text.textContent = waiting
      ? "Our team has this conversation and will answer here. To add something, write it in the chat."
      : "A person of our team will read this conversation and answer you here.";
    byId("person-label").textContent = !id
      ? "What is it about? A short description is enough."
      : "Anything they should know? (optional)";
    note.required = !id;
    byId("person-field").hidden = waiting;
    submit.hidden = waiting;
    byId("person-cancel").textContent = waiting ? "Back to the chat" : "Not now";
    error.hidden = true;
    dialog.showModal();
    if (!waiting) note.focus();
  }

  async function ask(words) {
    const conversation = current();
    if (!conversation.id) {
      if (!words) {
        say("Please write a few words, so that the right person can help you.");
        note.focus();
        return;
      }
      if (conversation.busy) {
        say("One moment, your first message is on its way. Please try again shortly.");
        return;
      }
      done();
      conversation.send(ASK + words);
      return;
    }
    submit.disabled = true;
    try {
      await conversation.escalate(words);
      submit.disabled = false;
      done();
    } catch (problem) {
      if (!dialog.open) open();
      failed(problem);
    }
  }

  function failed(problem) {
    const { text: cause, wait } = explain(problem);
    const sentence = cause.replace(" Your message is safe here.", "");
    if (!wait) {
      say(`${sentence} Please try again.`);
      submit.disabled = false;
      return;
    }
    // The line is an alert, spoken when it changes; so only the button counts.
    say(`${sentence} You can try again in ${duration(wait)}.`);
    countdown(
      wait,
      (left) => (submit.textContent = `Ask again in ${left} s`),
      () => {
        submit.textContent = "Ask for a person";
        submit.disabled = false;
      },
    );
  }

  function done() {
    note.value = "";
    save("note", "");
    if (dialog.open) dialog.close();
  }

  return () => ask("");
}

function say(words) {
  error.textContent = words;
  error.hidden = false;
}
