/**
 * The server's HTTP interface as functions. Same origin, cookie session; every failure leaves here
 * as a Problem, so that nothing else in the page knows about fetch or problem+json.
 */

import { readEvents } from "./stream.js";

const ROOT = "/api/v1";
const TIMEOUT_MS = 20_000;
const FIRST_BYTE_MS = 60_000;

/** status 0: the server could not be reached, or the connection broke. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", code = "", retryAfter = 0 } = {}) {
    super(detail || title || code || "unreachable");
    Object.assign(this, { status, title, detail, code, retryAfter });
  }
}

/** Fires "reachable" and "unreachable" after each request, for the status line in the header. */
export const connection = new EventTarget();

let visitor = null;

/** Who we are and which desk this is. Asked once; a failure is not remembered. */
export function session() {
  visitor ??= getJson("/session").catch((problem) => {
    visitor = null;
    throw problem;
  });
  return visitor;
}

/** Ask a question. @yields {{event, data}} of the stream; an "error" event is thrown as Problem. */
/** @param {string} key the same for every try to send this message: it is answered once */
export async function* ask(message, conversation, key) {
  const { user_id } = await session();
  const body = { user_id, message };
  if (conversation) body.conversation_id = conversation;
  // Only the wait for the response's head has a limit here; readEvents watches the stream itself.
  const head = new AbortController();
  const timer = setTimeout(() => head.abort(), FIRST_BYTE_MS);
  const response = await request("POST", "/query/stream", {
    body,
    signal: head.signal,
    accept: "text/event-stream",
    headers: { "Idempotency-Key": key },
  }).finally(() => clearTimeout(timer));
  try {
    for await (const item of readEvents(response.body)) {
      if (item.event === "error") throw new Problem({ status: 500, ...item.data });
      yield item;
    }
  } catch (error) {
    throw error instanceof Problem ? error : new Problem({ code: "stream-broken" });
  }
}

export const conversations = async () => (await getJson("/conversations?limit=20")).items;
export const messages = async (id) => (await getJson(`/conversations/${enc(id)}/messages`)).items;
export const article = (id) => getJson(`/kb/articles/${enc(id)}`);

export function escalate(id, reason) {
  return postJson(`/conversations/${enc(id)}/escalate`, reason ? { reason } : {});
}

export function rate(messageId, rating, comment) {
  const body = { message_id: messageId, rating };
  if (comment) body.comment = comment;
  return postJson("/feedback", body);
}

/** Is anybody there? Only for the status line; the answer itself does not matter. */
export const knock = () => getJson("/session").catch(() => null);

const enc = encodeURIComponent;

/**
 * Which page asks, and for the pages of staff the token that goes with changes. A page of another
 * origin cannot set these headers without a CORS preflight that the server refuses.
 */
let identity = { "X-Requested-With": "appliance-chat" };

export function identify(headers) {
  identity = headers;
}

export async function getJson(path) {
  return parse(await request("GET", path, { signal: AbortSignal.timeout(TIMEOUT_MS) }));
}

export async function postJson(path, body) {
  return parse(await request("POST", path, { body, signal: AbortSignal.timeout(TIMEOUT_MS) }));
}

async function parse(response) {
  try {
    const text = await response.text();
    return text ? JSON.parse(text) : {};
  } catch {
    throw new Problem();
  }
}

async function request(method, path, options = {}) {
  const { body, signal, accept = "application/json" } = options;
  const headers = { Accept: accept, ...identity, ...options.headers };
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(ROOT + path, {
      method,
      headers,
      signal,
      credentials: "same-origin",
      cache: "no-store",
      body: body && JSON.stringify(body),
    });
  } catch {
    connection.dispatchEvent(new Event("unreachable"));
    throw new Problem();
  }
  connection.dispatchEvent(new Event("reachable"));
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  // A proxy in front may answer with HTML; the status is then all there is to know.
  const document = await response.json().catch(() => ({}));
  const wait = response.headers.get("Retry-After");
  return new Problem({ ...document, status: response.status, retryAfter: secondsOf(wait) });
}

/** Retry-After is seconds here; a proxy may send a date, which HTTP allows as well. */
function secondsOf(value) {
  if (!value) return 0;
  const seconds = Number.isNaN(Number(value))
    ? (Date.parse(value) - Date.now()) / 1000
    : Number(value);
  return Math.max(0, Math.ceil(seconds) || 0);
}
