/**
 * What a customer reads when something fails: one calm sentence, and what to do. The server's own
 * words are shown only where they help to correct the message (4xx), never a stack trace.
 */

const DEFAULT_WAIT = 10;

/**
 * @param {import("./api.js").Problem} problem
 * @returns {{text: string, wait: number, remedy: "retry"|"fresh"|"reload"|"edit"}} wait: seconds
 *   until a retry makes sense; remedy "fresh": send again, in a new conversation.
 */
export function explain(problem) {
  const say = (text, remedy = "retry", wait = 0) => ({ text, remedy, wait });
  if (problem.code === "left-over") return say("This message was not sent yet.");
  switch (problem.status) {
    case 0:
      return say("We could not reach the support desk. Your message is safe here.");
    case 401:
    case 403:
      return say(
        "Your session has ended. Reload the page to go on; your message is kept.",
        "reload",
      );
    case 404:
      return say(
        "This conversation is no longer available. You can send your message in a new one.",
        "fresh",
      );
    case 409:
      return say(
        "We have your message already and are working on it.",
        "retry",
        problem.retryAfter || DEFAULT_WAIT,
      );
    case 429:
      return say(
        "That was a lot of messages in a short time.",
        "retry",
        problem.retryAfter || DEFAULT_WAIT,
      );
    case 503:
      return say(
        "The support desk is very busy right now.",
        "retry",
        problem.retryAfter || DEFAULT_WAIT,
      );
    default:
  }
  if (problem.status < 500) {
    return say(
      `We could not accept this message. ${problem.detail || problem.title}`.trim(),
      "edit",
    );
  }
  return say("Something went wrong on our side. Your message is safe here.");
}
