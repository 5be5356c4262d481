// The server's clock (P3), in milliseconds since 1970. The device's own clock is never asked: it may be wrong by hours, and may
// be set while the page is open. What is used of the device is only how much time has passed.

const SYNC_EVERY_MS = 30_000;
const SYNC_TRIES = 3;
// What a device's oscillator may be wrong by, so that an old measurement is trusted less and less.
const DRIFT = 0.0002;

const clock = { offset: null, doubt: Infinity, since: 0 };

// How far off the estimate may be now.
function clockDoubt() {
  return clock.doubt + (performance.now() - clock.since) * DRIFT;
}

function serverNow() {
  return clock.offset === null ? null : performance.now() + clock.offset;
}

// The earliest that it may be on the server: a button that goes by it never comes on too early.
function serverAtLeast() {
  return clock.offset === null ? null : serverNow() - clockDoubt();
}

// The server wrote this time at some moment between the request and its answer; the middle is wrong by half of that at most.
function learnTime(serverMs, sent, received) {
  const doubt = (received - sent) / 2;
  const offset = serverMs - (sent + received) / 2;
  const known = clock.offset !== null;
  const contradicts = known && Math.abs(offset - clock.offset) > doubt + clockDoubt();
  if (!known || contradicts || doubt <= clockDoubt()) Object.assign(clock, { offset, doubt, since: performance.now() });
}

async function synchronise() {
  for (let n = 0; n < SYNC_TRIES; n += 1) {
    const answer = await request("GET", "/time");
    if (answer.status !== 200) return;
    learnTime(answer.body.unix_us / 1000, answer.sent, answer.received);
  }
}

// Now and then, and after the page was out of sight, when a device may have slept.
function keepInStep() {
  const again = () => { if (!document.hidden) synchronise(); };
  // The first time was measured while the page was loading, and so by a busy device.
  setTimeout(again, jittered(4_000));
  setInterval(again, SYNC_EVERY_MS * (0.9 + 0.2 * Math.random()));
  document.addEventListener("visibilitychange", again);
  window.addEventListener("online", again);
  window.addEventListener("pageshow", (event) => { if (event.persisted) again(); });
}
