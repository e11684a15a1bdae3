/**
 * Server-sent events over fetch. EventSource cannot POST, so the few rules of the format are here:
 * fields by line, an empty line ends an event, a line that starts with ":" is a comment (a ping).
 */

// The server pings while a model thinks. Silence this long means the connection is dead, although
// no packet has said so (a laptop that slept, a cable that was pulled).
const SILENCE_MS = 90_000;

/**
 * @param {ReadableStream<Uint8Array>} body
 * @yields {{event: string, data: any}} each event with its data parsed as JSON
 */
export async function* readEvents(body) {
  const reader = body.getReader();
  try {
    const lines = lineReader();
    let event = "message";
    let data = [];
    for (;;) {
      const { value, done } = await withinSilence(reader.read());
      if (done) return;
      for (const line of lines(value)) {
        if (line === "") {
          if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
          event = "message";
          data = [];
          continue;
        }
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") event = text;
        else if (field === "data") data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Bytes in, complete lines out; an unfinished line or character waits for the next chunk. */
function lineReader() {
  const decoder = new TextDecoder();
  let rest = "";
  return (bytes) => {
    rest += decoder.decode(bytes, { stream: true });
    // A trailing CR may be the first half of CRLF: leave it until its other half could have come.
    const held = rest.endsWith("\r") ? "\r" : "";
    const lines = rest.slice(0, rest.length - held.length).split(/\r\n|\n|\r/);
    rest = lines.pop() + held;
    return lines;
  };
}

async function withinSilence(promise) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no sign of life")), SILENCE_MS);
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    clearTimeout(timer);
  }
}
