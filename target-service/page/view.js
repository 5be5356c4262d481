// What is seen and heard. Everything is shown from what is known at the moment, so that no two parts can disagree; text is set as
// text, and never as markup.

const field = (id) => document.getElementById(id);
const main = field("main");
const item = {
  id: Number(main.dataset.item), opens: Number(main.dataset.opens), closes: Number(main.dataset.closes), stock: Number(main.dataset.stock),
};

// Only what differs is written: a screen reader would hear it again, and a browser would lay it out again.
function put(id, text) {
  const node = field(id);
  if (node.textContent !== text || node.firstElementChild) node.textContent = text;
}

function hide(id, isHidden) {
  if (field(id).hidden !== isHidden) field(id).hidden = isHidden;
}

function set(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function say(key, values) {
  field("say").textContent = word(key, values);
}

function tell(text) {
  put("note", text);
}

function focusDeal() {
  show();
  if (!field("deal").hidden) field("deal").focus({ preventScroll: true });
  field("deal").scrollIntoView({ block: "nearest" });
}

const when = (ms) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(ms);
const clockTime = (ms) => new Intl.DateTimeFormat(language, { timeStyle: "medium" }).format(ms);
const money = (cents) => `¥${(cents / 100).toFixed(2)}`;
const twoDigits = (n) => String(n).padStart(2, "0");

function spoken(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  return s < 60 ? word("seconds", { s }) : word("minutes", { m: Math.floor(s / 60), s: s % 60 });
}

// Whoever has ordered looks at his order, and at nothing that others may want to know.
const OWNED = ["held", "placed", "paying", "pay-doubt", "paid", "expiring"];

let lastPhase = "loading";
let lastLeft = Infinity;
// Said once each: the last minute, the last ten seconds, the opening, and what comes after it.
function announce(now, left) {
  if (now === "early") {
    for (const [key, at] of [["say.minute", 60_000], ["say.ten", 10_000]]) {
      if (lastLeft > at && left <= at && left > at - 2_000) say(key);
    }
    lastLeft = left;
  }
  if (now === lastPhase) return;
  const isBack = lastPhase === "soldout" && now === "open";
  if (isBack) say("say.back");
  else if (WORDS[language][`say.${now}`]) say(`say.${now}`);
  if (lastPhase === "loading" && now !== "unknown") performance.mark("state-shown");
  lastPhase = now;
}

function showCountdown(now) {
  hide("countdown", now !== "early" && now !== "loading");
  if (now !== "early") return;
  const left = Math.max(0, Math.ceil((item.opens - serverNow()) / 1000));
  main.classList.toggle("close", left <= 10);
  put("days", String(Math.floor(left / 86_400)));
  put("hours", twoDigits(Math.floor(left / 3_600) % 24));
  put("minutes", twoDigits(Math.floor(left / 60) % 60));
  put("seconds", twoDigits(left % 60));
}

function showStock(now) {
  hide("stock", now === "ended" || now === "unknown" || OWNED.includes(deal.step));
  if (now === "loading" || !seen.state) return;
  const { available, as_of: asOf } = seen.state;
  const old = Math.max(0, Math.round((serverNow() - asOf / 1000) / 1000));
  const text = available <= 0 ? word("none") : word(old >= 5 ? "leftOld" : "left", { n: available, s: old });
  put("left", text);
  const bar = field("bar");
  set(bar, "aria-valuenow", String(available));
  set(bar, "aria-valuetext", text);
  bar.firstElementChild.style.width = `${item.stock > 0 ? Math.max(0, Math.min(100, (100 * available) / item.stock)) : 0}%`;
}

function showButton(now) {
  const button = field("order");
  hide("order", OWNED.includes(deal.step));
  const isUnder = deal.busy && (deal.step === "ordering" || deal.step === "doubt");
  const mayTryAgain = deal.step === "missing" && now === "open";
  const text = isUnder ? `buy.${deal.step}` : mayTryAgain ? "buy.again" : now === "open" && !buyer.token ? "buy.login" : `buy.${now}`;
  put("order", word(text));
  // While an order is under way the button keeps the focus, and does nothing.
  set(button, "aria-disabled", String(isUnder));
  button.disabled = !isUnder && now !== "open";
}

// A shop that deducts at the order sets no time limit; it says so with one that nobody lives to see.
const A_DAY_MS = 86_400_000;
const MOODS = { paid: "good", held: "good", refused: "bad", expired: "bad", missing: "bad" };

function showDeal() {
  const { step, order: found, why } = deal;
  set(main, "data-deal", step);
  hide("deal", step === "none" || step === "ordering");
  if (field("deal").hidden) return;
  set(field("deal"), "data-mood", MOODS[step] || "");
  const ends = found ? found.expires_at / 1000 : 0;
  const values = { until: found && clockTime(ends), left: found && spoken(ends - serverNow()) };
  put("deal-title", word(`deal.${step}`));
  const isForEver = (step === "held" || step === "placed") && ends - serverNow() > A_DAY_MS;
  put("deal-text", why ? reason(why) : word(`${step}.${isForEver ? "forever" : "text"}`, values));
  put("deal-number", found && step !== "refused" ? word("number", { id: found.id }) : "");
  const mayPay = step === "held" || step === "placed" || step === "pay-doubt" || step === "paying";
  hide("deal-row", !mayPay);
  if (!mayPay) return;
  put("pay", step === "paying" ? word("deal.paying") : word("pay", { amount: money(found.amount_cents) }));
  put("cancel", word("cancel"));
  set(field("pay"), "aria-disabled", String(deal.busy));
  hide("cancel", deal.busy || step === "pay-doubt");
}

function reason(answer) {
  const values = { title: answer.body.title || answer.status, s: Math.max(1, answer.retryAfter) };
  return word(`why.${answer.type}`, values) || word("why.other", values);
}

function showBuyer() {
  hide("login", Boolean(buyer.token));
  hide("who", !buyer.token);
  put("who-name", buyer.user || "");
  const { extras } = buyer;
  put("who-extras", extras ? [word("level", extras), word("coupons", extras)].join(" · ") : "");
}

function show() {
  const now = phase();
  set(main, "data-phase", now);
  announce(now, item.opens - serverNow());
  put("phase", word(`phase.${now}`));
  const times = { opens: when(item.opens), closes: when(item.closes) };
  hide("when", OWNED.includes(deal.step));
  if (now !== "loading") put("when", word(now === "early" || now === "ended" ? `when.${now}` : "when.open", times));
  showCountdown(now);
  showStock(now);
  showBuyer();
  showButton(now);
  showDeal();
  const isDue = deal.step === "held" || deal.step === "placed";
  if (isDue && !deal.busy && serverAtLeast() >= deal.order.expires_at / 1000) expire();
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  const button = field("language");
  button.textContent = word("other");
  button.lang = word("otherLang");
  button.setAttribute("aria-label", word("otherLabel"));
  show();
}
