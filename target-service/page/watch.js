// What changes: the item's state, by polling and, before the opening, by events that the shop pushes (P4). It is the same for
// everybody and is asked for without saying who asks, so that the access layer may answer.

const POLL_MS = { far: 15_000, near: 4_000, open: 1_000, soldout: 3_000, hidden: 30_000, most: 15_000 };
const NEAR_MS = 60_000;
// Streams are opened this long before the opening, each page at a moment of its own.
const PUSH_MS = 120_000;

const seen = { state: null, at: 0, level: 0, failures: 0, opened: false };

function learnState(state, level) {
  // An answer that was overtaken by a newer one says nothing.
  if (seen.state && state.as_of < seen.state.as_of && state.stale) return;
  Object.assign(seen, { state, level, at: performance.now(), failures: 0 });
}

async function look() {
  const answer = await request("GET", `/items/${item.id}/state`);
  if (answer.status === 200) {
    if (!answer.body.stale) learnTime(answer.body.as_of / 1000, answer.sent, answer.received);
    learnState(answer.body, answer.level);
  } else {
    seen.failures += 1;
    if (answer.type === "degraded") seen.level = Math.max(answer.level, 3);
  }
  show();
  return answer;
}

// A state that came with the page (P9): the server wrote it while the page was on its way.
function readGiven() {
  const given = field("state");
  if (!given) return null;
  const state = JSON.parse(given.textContent);
  const [way] = performance.getEntriesByType("navigation");
  if (!state.stale && way) learnTime(state.as_of / 1000, way.requestStart, way.responseStart);
  learnState(state, Number(given.dataset.level));
  show();
  return { retryAfter: 0 };
}

function pollAfter(answer) {
  if (seen.failures > 0) {
    const backoff = Math.min(500 * 2 ** seen.failures, POLL_MS.most);
    return jittered(Math.max(backoff, answer.retryAfter * 1000));
  }
  if (document.hidden) return jittered(POLL_MS.hidden);
  const now = phase();
  if (now !== "early") return jittered(now === "open" ? POLL_MS.open : POLL_MS.soldout);
  const left = item.opens - serverNow();
  // The look after the opening is spread over a second; the button does not wait for it.
  return Math.min(jittered(left > NEAR_MS ? POLL_MS.far : POLL_MS.near), Math.max(left, 0) + Math.random() * 1000);
}

async function watch() {
  let nudged = () => {};
  document.addEventListener("visibilitychange", () => { if (!document.hidden) nudged(); });
  let isListening = false;
  let given = readGiven();
  while (phase() !== "ended") {
    const answer = given || (await look());
    given = null;
    // A state from a cache does not say what time it is.
    if (clock.offset === null) await synchronise();
    if (!isListening && clock.offset !== null) {
      isListening = true;
      listenForOpening();
      show();
    }
    await Promise.race([pause(pollAfter(answer)), new Promise((resolve) => { nudged = resolve; })]);
  }
  show();
}

// The browser takes up a broken stream by itself, from the event that it has seen last.
function listenForOpening() {
  const left = item.opens - serverNow();
  if (left <= 0 || !window.EventSource) return;
  setTimeout(() => {
    const events = new EventSource(`/items/${item.id}/events`);
    const hear = (isLast) => (event) => {
      learnState(JSON.parse(event.data), seen.level);
      if (isLast) {
        seen.opened = event.type === "open";
        events.close();
      }
      show();
    };
    events.addEventListener("state", hear(false));
    events.addEventListener("open", (event) => { if (event.data) hear(true)(event); });
    events.addEventListener("ended", hear(true));
  }, Math.min(Math.max(left - jittered(PUSH_MS), 0), 2 ** 31 - 1));
}

// Where the sale stands, on the server's clock.
function phase() {
  const now = serverNow();
  // While everything is static, nobody says what time it is.
  if (now === null) return seen.level >= 3 ? "paused" : seen.failures > 0 ? "unknown" : "loading";
  const { opens, closes } = item;
  if (now >= closes) return "ended";
  if (serverAtLeast() < opens && !seen.opened) return "early";
  if (seen.level >= 3) return "paused";
  if (!seen.state) return seen.failures > 0 ? "unknown" : "loading";
  return seen.state.available > 0 ? "open" : "soldout";
}
