// One buyer's purchase: signing in, ordering, paying. Every attempt has a key that outlives a reload, and keeps it until the shop has
// said what became of it. Whatever has no clear answer is asked about under its key, and never ordered again under another one.

const buyer = { user: passing.get("seckill:user"), token: passing.get("seckill:token"), extras: null };
const deal = { step: "none", order: null, why: null, busy: false };

const keyName = () => `seckill:key:${item.id}:${buyer.user}`;

function attemptKey() {
  let key = passing.get(keyName()) || attemptKey.kept;
  if (!key) {
    key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    passing.set(keyName(), key);
  }
  attemptKey.kept = key;
  return key;
}

function dropKey() {
  passing.drop(keyName());
  attemptKey.kept = null;
}

// Whoever asks "what became of it" and "order" at once would be told two things: one at a time, and repeated presses are nothing (V1).
async function once(what) {
  if (deal.busy) return;
  deal.busy = true;
  show();
  try { await what(); } finally {
    deal.busy = false;
    show();
  }
}

function move(step, more = {}) {
  Object.assign(deal, { step, why: null }, more);
  show();
}

async function signIn(user) {
  const answer = await request("POST", "/sessions", { body: { user } });
  if (answer.status !== 201) return tell(word("loginFailed"));
  Object.assign(buyer, { user, token: answer.body.token, extras: null });
  passing.set("seckill:user", user);
  passing.set("seckill:token", buyer.token);
  attemptKey.kept = null;
  tell("");
  say("say.in", { user });
  show();
  readExtras();
  await resume();
}

function signOut() {
  ["seckill:user", "seckill:token"].forEach((name) => passing.drop(name));
  Object.assign(buyer, { user: null, token: null, extras: null });
  attemptKey.kept = null;
  move("none", { order: null });
}

// What the shop knows of the buyer is loaded on its own (P2): nothing waits for it, and nothing is said if it does not come.
async function readExtras() {
  const { token } = buyer;
  const answer = await request("GET", "/me", { token });
  if (token !== buyer.token) return;
  if (answer.status === 401) return sessionOver();
  if (answer.status === 200 && !answer.body.default) buyer.extras = answer.body;
  show();
}

function sessionOver() {
  const key = passing.get(keyName());
  const name = buyer.user;
  signOut();
  // The same name finds the same order again.
  if (key) passing.set(`seckill:key:${item.id}:${name}`, key);
  field("name").value = name || "";
  tell(word("sessionOver"));
}

// After a reload: what became of the attempt that was under way.
async function resume() {
  if (!buyer.token || !passing.get(keyName())) return;
  await once(() => settle("resume"));
}

async function order() {
  if (!buyer.token) {
    tell(word("nameFirst"));
    return field("name").focus();
  }
  await once(async () => {
    tell("");
    move("ordering");
    const answer = await request("POST", `/items/${item.id}/orders`, { token: buyer.token, key: attemptKey(), body: { quantity: 1 } });
    if (answer.status === 200 || answer.status === 201) return learnOrder(answer.body, true);
    if (answer.status === 401) return sessionOver();
    if (isUnclear(answer) || answer.type === "in-flight") return settle("order");
    if (answer.type === "too-early") synchronise();
    return refuse(answer);
  });
}

function refuse(answer) {
  // A refusal is for good under its key; `degraded` and the like were said before the key was looked at.
  dropKey();
  move("refused", { why: answer });
  focusDeal();
}

// Asks what became of the key until there is an answer. After a refusal to say, it waits longer and longer.
async function settle(after) {
  const { token } = buyer;
  const step = after === "pay" ? "pay-doubt" : "doubt";
  for (let tries = 0; token === buyer.token; tries += 1) {
    const answer = await request("GET", `/orders?idempotency_key=${attemptKey()}`, { token });
    if (token !== buyer.token) return;
    if (answer.status === 401) return sessionOver();
    if (answer.status === 200) {
      const isOpen = answer.body.state === "held" || answer.body.state === "placed";
      // A payment that was begun may yet go through; after some looks, the buyer may pay again, which is safe.
      if (after !== "pay" || !isOpen || tries >= 4) {
        learnOrder(answer.body, after !== "resume");
        if (after === "pay" && isOpen) keepAsking();
        return;
      }
    }
    if (answer.status === 404) {
      // It may still be on its way, so that the next press goes under the same key.
      return after === "resume" ? move("none") : move("missing");
    }
    move(step);
    if (tries === 0 && after !== "resume") focusDeal();
    await pause(jittered(Math.max(Math.min(300 * 2 ** tries, 5_000), answer.retryAfter * 1000)));
  }
}

// A payment that may yet go through is asked about for as long as the buyer does nothing else.
async function keepAsking() {
  const { token } = buyer;
  move("pay-doubt");
  while (deal.step === "pay-doubt" && token === buyer.token) {
    await pause(jittered(3_000));
    if (deal.busy) continue;
    const answer = await request("GET", `/orders?idempotency_key=${attemptKey()}`, { token });
    const isSettled = answer.status === 200 && answer.body.state !== "held" && answer.body.state !== "placed";
    if (isSettled && !deal.busy && deal.step === "pay-doubt" && token === buyer.token) learnOrder(answer.body, true);
  }
}

function learnOrder(found, isNews) {
  // What has ended frees the buyer for another attempt; what is paid stays to be shown after a reload.
  if (found.state === "expired" || found.state === "cancelled") dropKey();
  move(found.state, { order: found });
  if (isNews) focusDeal();
}

async function pay() {
  await once(async () => {
    move("paying");
    const answer = await request("POST", `/orders/${deal.order.id}/pay`, { token: buyer.token });
    if (answer.status === 200) return learnOrder(answer.body, true);
    if (answer.status === 401) return sessionOver();
    if (isUnclear(answer) || answer.type === "in-flight") return settle("pay");
    if (answer.type === "payment-declined" || answer.status === 429) return move(deal.order.state, { why: answer });
    dropKey();
    move("refused", { why: answer });
  });
}

async function cancel() {
  await once(async () => {
    const answer = await request("POST", `/orders/${deal.order.id}/cancel`, { token: buyer.token });
    if (answer.status === 200) return learnOrder(answer.body, true);
    if (answer.status === 401) return sessionOver();
    return settle("resume");
  });
}

// The hold has run out on the server's clock: what became of the order, only the shop knows.
async function expire() {
  await once(async () => {
    const { token } = buyer;
    for (let tries = 0; token === buyer.token; tries += 1) {
      move("expiring");
      const answer = await request("GET", `/orders?idempotency_key=${attemptKey()}`, { token });
      if (answer.status === 401) return sessionOver();
      if (answer.status === 200 && answer.body.state !== "held" && answer.body.state !== "placed") return learnOrder(answer.body, true);
      await pause(jittered(Math.min(500 * 2 ** tries, 5_000)));
    }
  });
}
