/** The sign-in page: one form for a password, one for a key, and what a signed-in person may do. */

import { byId } from "./dom.js";
import { account, changePassword, signIn, signOut } from "./staff.js";

const views = ["loading", "sign-in", "signed-in"];

function show(view) {
  for (const name of views) byId(name).hidden = name !== view;
}

/** Only a path of this server: "//host" and "/\\host" would be another one. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "";
  const target = new URL(wanted || "/login", location.origin);
  const local = wanted.startsWith("/") && target.origin === location.origin;
  return local && target.pathname !== "/login" ? target.pathname + target.search : null;
}

function greet(who) {
  byId("who").textContent = who.username ? `${who.name} (${who.username})` : `Key ${who.name}`;
  byId("role").textContent = who.role === "admin" ? "Administrator" : "Agent";
  byId("until").textContent = new Date(who.expires_at).toLocaleString();
  byId("password-form").hidden = !who.username;
  show("signed-in");
}

function say(id, text, bad = true) {
  const line = byId(id);
  line.textContent = text;
  line.className = bad ? "error" : "note";
  line.hidden = !text;
}

function explain(problem) {
  if (problem.status === 0) return "The server could not be reached. Try again.";
  const wait = problem.retryAfter ? ` Try again in ${problem.retryAfter} seconds.` : "";
  return `${problem.detail || problem.title}${wait}`;
}

/** Runs a form's work with its button off, and tells what went wrong. */
function wire(formId, lineId, work) {
  const form = byId(formId);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    say(lineId, "");
    try {
      await work(Object.fromEntries(new FormData(form)));
      form.reset();
    } catch (problem) {
      say(lineId, explain(problem));
      form.querySelector("input[type=password]").select();
    } finally {
      button.disabled = false;
    }
  });
}

async function enter(credentials) {
  const who = await signIn(credentials);
  const target = next();
  if (target) location.replace(target);
  else greet(who);
}

wire("sign-in-form", "sign-in-error", ({ username, password }) => enter({ username, password }));
wire("key-form", "key-error", ({ key }) => enter({ key }));
wire("password-form", "password-line", async ({ present, fresh, again }) => {
  if (fresh !== again) throw { status: 400, detail: "The two new passwords differ." };
  greet(await changePassword(present, fresh));
  say("password-line", "The password is changed. Your other sessions have ended.", false);
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch (problem) {
    if (problem.status !== 401) {
      say("sign-out-error", explain(problem));
      return;
    }
  }
  say("password-line", "");
  show("sign-in");
  byId("username").focus();
});

try {
  const who = await account();
  if (who) greet(who);
  else show("sign-in");
} catch (problem) {
  show("sign-in");
  say("sign-in-error", explain(problem));
}
