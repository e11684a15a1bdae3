/**
 * What this browser remembers: the open conversation, the unsent draft, and the outbox
 * (messages sent but not yet acknowledged by the server).
 *
 * Storage can be switched off or full; then the page still works from memory until it is
 * closed, because losing a draft is bad and refusing to chat is worse.
 */

const PREFIX = "smartsupport.";
const memory = new Map();

export function load(key, fallback = null) {
  try {
    const raw = memory.get(key) ?? localStorage.getItem(PREFIX + key);
    return raw === null ? fallback : JSON.parse(raw);
  } catch {
    return fallback;
  }
}

export function save(key, value) {
  const raw = JSON.stringify(value);
  try {
    localStorage.setItem(PREFIX + key, raw);
    memory.delete(key);
  } catch {
    memory.set(key, raw);
  }
}

/** Keep what is typed into `field` under `key`, so that a reload gives it back. */
export function keepDraft(field, key) {
  field.value = load(key, "");
  field.addEventListener("input", () => save(key, field.value));
}

// A ticket lives from pressing send until the server has shown that it has the message. What is
// found here when the page loads was cut off by a reload or a crash.
const leftOver = load("outbox", []);

export const outbox = {
  /** @returns {string} the ticket to remove once the message is safe elsewhere */
  add(conversation, text) {
    // Not crypto.randomUUID: it exists only in secure contexts, and a desk on a LAN may be plain HTTP.
    const ticket = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    save("outbox", [...load("outbox", []), { ticket, conversation, text, at: Date.now() }]);
    return ticket;
  },

  remove(ticket) {
    save(
      "outbox",
      load("outbox", []).filter((entry) => entry.ticket !== ticket),
    );
  },

  /** The messages of `conversation` (null: one that had no id yet) cut off before this page load. */
  takeLeftOver(conversation) {
    const taken = leftOver.filter((entry) => entry.conversation === conversation);
    for (const entry of taken) leftOver.splice(leftOver.indexOf(entry), 1);
    return taken;
  },
};
