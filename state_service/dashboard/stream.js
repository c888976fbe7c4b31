// Server-sent events over fetch: unlike EventSource, it can send a token and see why it is refused.

const SILENCE_MS = 5000; // the service speaks every second
const LONGEST_PAUSE_MS = 5000;
const TOKEN = "medianserve-token";

/** The token for this tab, if one was entered. */
export function token() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

export function keepToken(value) {
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch {
    // a browser may refuse to keep anything: it is asked for again
  }
}

/**
 * Read a stream until `close` is called, and come back when it ends.
 *
 * Calls `onEvent(name, data)`, `onOpen()`, `onLost()`, and `onRefused(status, problem)` for an
 * answer that is an error; of those only 503 is tried again by itself.
 */
export function open(address, { onEvent, onOpen, onLost, onRefused }) {
  let controller = null;
  let closed = false;
  let wake = null;
  let timer = 0;

  async function once() {
    controller = new AbortController();
    let silence = 0;
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE_MS);
    };
    try {
      alive();
      const bearer = token();
      const answer = await fetch(address, {
        cache: "no-store",
        headers: bearer ? { Authorization: `Bearer ${bearer}` } : {},
        signal: controller.signal,
      });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        if (!closed) onRefused(answer.status, problem);
        return answer.status === 503;
      }
      if (!closed) onOpen();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done || closed) break;
        alive();
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) handle(part);
      }
    } catch (error) {
      if (!(error instanceof TypeError || error.name === "AbortError")) throw error;
    } finally {
      clearTimeout(silence);
    }
    if (!closed) onLost();
    return true;
  }

  function handle(part) {
    const fields = Object.fromEntries(
      part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
    );
    if (fields.data && !closed) onEvent(fields.event, JSON.parse(fields.data));
  }

  (async () => {
    let pause = 250;
    while (!closed) {
      const begin = performance.now();
      if (!(await once())) return;
      pause = performance.now() - begin > LONGEST_PAUSE_MS ? 250 : Math.min(pause * 2, LONGEST_PAUSE_MS);
      const jitter = 0.5 + Math.random() / 2;
      await new Promise((resolve) => {
        wake = resolve;
        timer = setTimeout(resolve, pause * jitter);
      });
    }
  })();

  return {
    close() {
      closed = true;
      controller?.abort();
      clearTimeout(timer);
      wake?.();
    },
  };
}
