// What the page says that depends on what happens, in both languages. What is always there stands in page.html.

const WORDS = {
  "zh-CN": {
    other: "English", otherLabel: "Switch to English", otherLang: "en",
    "phase.loading": "正在连接商店…", "phase.unknown": "暂时连不上商店", "phase.early": "距离开售还有", "phase.open": "正在抢购",
    "phase.soldout": "已售罄", "phase.ended": "活动已结束", "phase.paused": "暂停下单，请稍后再试",
    "when.early": "{opens} 开售", "when.open": "{closes} 结束", "when.ended": "已于 {closes} 结束",
    left: "剩余 {n} 件", leftOld: "剩余约 {n} 件（{s} 秒前）", none: "眼下没有可卖的货；若有人逾期未付，会重新开放", unread: "余量暂时未知",
    "buy.loading": "请稍候", "buy.unknown": "正在重新连接…", "buy.early": "即将开售", "buy.open": "立即购买", "buy.login": "登录后购买",
    "buy.soldout": "已售罄", "buy.ended": "已结束", "buy.paused": "暂停下单", "buy.ordering": "正在下单…", "buy.doubt": "正在确认结果…",
    "buy.again": "再试一次（同一订单）",
    "say.minute": "距离开售还有一分钟", "say.ten": "距离开售还有十秒", "say.open": "已开售，可以购买", "say.soldout": "已售罄",
    "say.back": "又有货了，可以购买", "say.ended": "活动已结束", "say.in": "已登录：{user}",
    level: "等级 {level}", coupons: "优惠券 {coupons} 张",
    nameFirst: "请先填写名字并登录。", nameBad: "名字需为 1 到 40 个字符。", loginFailed: "登录没有成功，请再试一次。", sessionOver: "登录已失效，请重新登录；订单不受影响。",
    "deal.doubt": "结果尚不明确", "doubt.text": "商店没有及时答复，订单可能已成立。正在用同一编号查询，请不要关闭本页，也不必重复下单。",
    "deal.missing": "订单没有送达", "missing.text": "商店没有收到这笔订单，什么也没有扣。再按一次会沿用同一编号，不会重复下单。",
    "deal.held": "抢到了！请尽快付款", "held.text": "货品为您保留到 {until}，还剩 {left}。",
    "held.forever": "货品为您保留，直到您付款。", "placed.forever": "付款成功才会留货。",
    "deal.placed": "已下单，请付款", "placed.text": "付款成功才会留货。请在 {until} 之前付款，还剩 {left}。",
    "deal.paying": "正在付款…", "paying.text": "请稍候。",
    "deal.pay-doubt": "付款结果尚不明确", "pay-doubt.text": "付款可能已经成功，正在查询。再次付款不会重复扣款。",
    "deal.paid": "已付款", "paid.text": "货品是您的了，谢谢！",
    "deal.expiring": "付款时限已到", "expiring.text": "正在确认这笔订单的结果…",
    "deal.expired": "订单已过期", "expired.text": "没有在时限内付款，货品已退回。没有扣款。",
    "deal.cancelled": "订单已取消", "cancelled.text": "货品已退回。没有扣款。",
    "deal.refused": "没有买到", number: "订单号 {id}",
    pay: "付款 {amount}", cancel: "取消订单", seconds: "{s} 秒", minutes: "{m} 分 {s} 秒",
    "why.sold-out": "已经没有货了。没有扣款。", "why.too-early": "商店说还没有开售。请等倒计时结束再按。", "why.ended": "活动已经结束。",
    "why.limit-reached": "您已达到每人限购的件数。", "why.non-payer": "您有太多订单没有付款，本次不能购买。", "why.cooling-down": "您下单太频繁，请过 {s} 秒再试。",
    "why.risk-refused": "这个账号的行为不像真人，商店拒绝了订单。", "why.degraded": "商店暂停接受新订单，什么也没有扣。请稍后再试。",
    "why.challenge-required": "商店要求先完成验证。", "why.hold-expired": "付款时限已过，货品已退回。没有扣款。", "why.payment-declined": "付款被拒绝，没有扣款。货品仍为您保留，可以再试。",
    "why.already-paid": "订单已经付款，不能取消。", "why.cancelled": "订单已被取消。", "why.overloaded": "商店正忙，什么也没有扣。请过 {s} 秒再试。", "why.other": "商店拒绝了：{title}",
  },
  en: {
    other: "中文", otherLabel: "切换到中文", otherLang: "zh-CN",
    "phase.loading": "Connecting to the shop…", "phase.unknown": "The shop cannot be reached just now", "phase.early": "The sale opens in", "phase.open": "On sale now",
    "phase.soldout": "Sold out", "phase.ended": "The sale is over", "phase.paused": "Ordering is paused; please try again later",
    "when.early": "Opens {opens}", "when.open": "Until {closes}", "when.ended": "Ended {closes}",
    left: "{n} left", leftOld: "About {n} left ({s} s ago)", none: "Nothing is left at this moment; what others leave unpaid comes back", unread: "How many are left is not known just now",
    "buy.loading": "One moment", "buy.unknown": "Connecting again…", "buy.early": "Not open yet", "buy.open": "Buy now", "buy.login": "Sign in and buy",
    "buy.soldout": "Sold out", "buy.ended": "Over", "buy.paused": "Ordering is paused", "buy.ordering": "Ordering…", "buy.doubt": "Finding out…",
    "buy.again": "Try again (the same order)",
    "say.minute": "One minute until the sale opens", "say.ten": "Ten seconds until the sale opens", "say.open": "The sale is open, you can buy", "say.soldout": "Sold out",
    "say.back": "Something came back, you can buy", "say.ended": "The sale is over", "say.in": "Signed in as {user}",
    level: "level {level}", coupons: "coupons: {coupons}",
    nameFirst: "Please enter your name and sign in first.", nameBad: "A name has 1 to 40 characters.", loginFailed: "Signing in did not work; please try again.", sessionOver: "Your session has ended; please sign in again. Your order is safe.",
    "deal.doubt": "Not known yet", "doubt.text": "The shop did not answer in time, and your order may have been made. This page is asking about it under the same number; please keep it open. There is no need to order again.",
    "deal.missing": "The order did not arrive", "missing.text": "The shop has no such order, and took nothing. Another press uses the same number, so it cannot become two orders.",
    "deal.held": "It is yours if you pay now", "held.text": "Kept for you until {until}: {left} left.",
    "held.forever": "Kept for you until you pay.", "placed.forever": "It is yours once it is paid.",
    "deal.placed": "Ordered, please pay", "placed.text": "It is yours once it is paid. Pay before {until}: {left} left.",
    "deal.paying": "Paying…", "paying.text": "One moment.",
    "deal.pay-doubt": "Not known yet whether it is paid", "pay-doubt.text": "The payment may have gone through; this page is asking. Paying again does not charge you twice.",
    "deal.paid": "Paid", "paid.text": "It is yours. Thank you!",
    "deal.expiring": "The time to pay is over", "expiring.text": "Finding out what became of the order…",
    "deal.expired": "The order has run out", "expired.text": "It was not paid in time, and went back on sale. You were not charged.",
    "deal.cancelled": "The order is cancelled", "cancelled.text": "It went back on sale. You were not charged.",
    "deal.refused": "Not bought", number: "Order {id}",
    pay: "Pay {amount}", cancel: "Cancel the order", seconds: "{s} s", minutes: "{m} min {s} s",
    "why.sold-out": "There is nothing left. You were not charged.", "why.too-early": "The shop says that the sale has not opened. Please wait for the countdown.", "why.ended": "The sale is over.",
    "why.limit-reached": "You have as many as one buyer may have.", "why.non-payer": "Too many of your orders were left unpaid; you cannot buy in this sale.", "why.cooling-down": "You ordered too often; please wait {s} s.",
    "why.risk-refused": "This account does not behave like a person, and the shop refused the order.", "why.degraded": "The shop takes no new orders for the moment, and took nothing. Please try again later.",
    "why.challenge-required": "The shop wants a challenge to be answered first.", "why.hold-expired": "The time to pay is over, and it went back on sale. You were not charged.", "why.payment-declined": "The payment was declined, and nothing was charged. It is still kept for you; you may try again.",
    "why.already-paid": "The order is paid, and cannot be cancelled.", "why.cancelled": "The order was cancelled.", "why.overloaded": "The shop is busy, and took nothing. Please try again in {s} s.", "why.other": "The shop refused: {title}",
  },
};

// A store of the browser's that may be forbidden, as in some private windows: then nothing is remembered.
function store(kind) {
  return {
    get: (key) => { try { return window[kind].getItem(key); } catch { return null; } },
    set: (key, value) => { try { window[kind].setItem(key, value); } catch { /* Not remembered. */ } },
    drop: (key) => { try { window[kind].removeItem(key); } catch { /* Nor was it. */ } },
  };
}
const lasting = store("localStorage"); // The language.
const passing = store("sessionStorage"); // Who is signed in, and what is under way: ends with the tab, survives a reload.

// What was chosen; else the first language that the browser asks for (its Accept-Language) and the page has.
function preferredLanguage() {
  const chosen = lasting.get("seckill:language");
  if (WORDS[chosen]) return chosen;
  const asked = (navigator.languages || [navigator.language]).map((tag) => tag.toLowerCase().split("-")[0]);
  return asked.find((tag) => tag === "zh" || tag === "en") === "en" ? "en" : "zh-CN";
}

let language = preferredLanguage();

function word(key, values = {}) {
  return (WORDS[language][key] || "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
