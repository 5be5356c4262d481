// How the page asks the shop. An answer that does not come, or not in time, has the status 0: what it was about is not known.

const READ_MS = 4_000;
const WRITE_MS = 8_000;

async function request(method, path, { token, key, body } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (key) headers["idempotency-key"] = `"${key}"`;
  if (body) headers["content-type"] = "application/json";
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), method === "GET" ? READ_MS : WRITE_MS);
  const sent = performance.now();
  try {
    const reply = await fetch(path, {
      method, headers, body: body && JSON.stringify(body), signal: limit.signal, cache: "no-store", credentials: "omit",
    });
    const received = performance.now();
    const parsed = await reply.json().catch(() => null);
    const number = (name) => Number(reply.headers.get(name)) || 0;
    // A success that cannot be read says nothing.
    const status = reply.ok && parsed === null ? 0 : reply.status;
    return {
      status, body: parsed || {}, type: (parsed && parsed.type) || "", sent, received,
      level: number("x-degrade-level"), age: number("age"), retryAfter: number("retry-after"),
    };
  } catch {
    return { status: 0, body: {}, type: "", sent, received: performance.now(), level: 0, age: 0, retryAfter: 0 };
  } finally {
    clearTimeout(timer);
  }
}

// Whether an answer leaves open what was done: none at all, or an error of the server's.
function isUnclear(answer) {
  return answer.status === 0 || answer.status >= 500;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Not everybody at the same moment: between a half and one and a half of it.
const jittered = (ms) => ms * (0.5 + Math.random());
