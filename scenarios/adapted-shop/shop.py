#!/usr/bin/env python3
"""A small shop that knows nothing of the rehearsal: the example of docs/adapting-a-shop.md.

It answers everything with 200 and a code inside, logs people in by a form and a cookie, writes prices as "99.00", and takes
orders into a queue. It keeps its books in SQLite. Only Python's standard library is needed.

    shop.py serve [--bug oversell]    the shop, at SECKILL_ADDRESS (127.0.0.1:8099 unless given)
    shop.py ads                       what it asks for advertisements
    shop.py setup | audit | cleanup | verify    what an adapter needs beside it
"""

import argparse
import hashlib
import hmac
import json
import os
import queue
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HOST, PORT = os.environ.get("SECKILL_ADDRESS", "127.0.0.1:8099").rsplit(":", 1)
FILE = os.environ.get("SHOP_DB", os.path.join(tempfile.gettempdir(), f"adapted-shop-{PORT}.db"))
ADS = "127.0.0.1:8097"
ASKED_FOR_ADS = "127.0.0.1:8098"  # the rehearsal's proxy; without a rehearsal it would be ADS
SECRET = b"not a secret"
OK, SOLD_OUT, LIMIT, NOT_STARTED, OVER, LOG_IN, UNKNOWN, CLOSED = 0, 1001, 1002, 1003, 1004, 1401, 1404, 1409
MESSAGES = {
    OK: "ok", SOLD_OUT: "SOLD_OUT", LIMIT: "ONE_EACH", NOT_STARTED: "NOT_STARTED", OVER: "OVER",
    LOG_IN: "LOG_IN", UNKNOWN: "UNKNOWN", CLOSED: "CLOSED",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS goods (id INTEGER PRIMARY KEY, total INT, left_over INT, price INT, each INT, opens INT, closes INT, hold INT);
CREATE TABLE IF NOT EXISTS tickets (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT UNIQUE, buyer TEXT, goods INT, count INT,
                                    code INT, order_no TEXT);
CREATE TABLE IF NOT EXISTS orders (no TEXT PRIMARY KEY, buyer TEXT, goods INT, count INT, price INT, status TEXT, token TEXT, until INT);
CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY AUTOINCREMENT, at INT, what TEXT, no TEXT, why TEXT);
"""

local = threading.local()
one_writer = threading.Lock()


def db():
    if not hasattr(local, "db"):
        local.db = sqlite3.connect(FILE, timeout=20, isolation_level=None)
        local.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
    return local.db


class Transaction:
    """The only way to write: one at a time, all or nothing."""

    def __enter__(self):
        one_writer.acquire()
        try:
            db().execute("BEGIN IMMEDIATE")
        except BaseException:
            one_writer.release()
            raise
        return db()

    def __exit__(self, error, *_):
        try:
            db().execute("ROLLBACK" if error else "COMMIT")
        finally:
            one_writer.release()


def now():
    return time.time_ns() // 1000


def money(cents):
    return f"{cents // 100}.{cents % 100:02}"


def note(tx, what, no, why=None):
    tx.execute("INSERT INTO log (at, what, no, why) VALUES (?, ?, ?, ?)", (now(), what, no, why))


# --- the sale ---------------------------------------------------------------------------------------------------------

waiting = queue.Queue()


def accept(buyer, goods, count, token):
    """Takes an order into the queue; the same token is the same order."""
    row = db().execute("SELECT left_over, opens, closes FROM goods WHERE id = ?", (goods,)).fetchone()
    if row is None or count < 1:
        return UNKNOWN, None
    known = db().execute("SELECT id FROM tickets WHERE token = ?", (token,)).fetchone()
    if known:
        return OK, {"queue": f"q-{known[0]}"}
    left_over, opens, closes = row
    if now() < opens:
        return NOT_STARTED, None
    if now() >= closes:
        return OVER, None
    if left_over <= 0:
        return SOLD_OUT, None
    with Transaction() as tx:
        tx.execute("INSERT OR IGNORE INTO tickets (token, buyer, goods, count) VALUES (?, ?, ?, ?)", (token, buyer, goods, count))
        ticket = tx.execute("SELECT id FROM tickets WHERE token = ?", (token,)).fetchone()[0]
    waiting.put(ticket)
    return OK, {"queue": f"q-{ticket}"}


def decide(ticket, bug):
    """Makes an order of a ticket, or says why not."""
    if bug == "oversell":
        # Looks first and deducts later: whoever looks in between sells the same unit.
        row = db().execute("SELECT g.left_over - t.count, g.id FROM tickets t JOIN goods g ON g.id = t.goods WHERE t.id = ?", (ticket,))
        row = row.fetchone()
        if row is None:
            return
        time.sleep(0.1)
        enough, deduct = row[0] >= 0, "UPDATE goods SET left_over = max(left_over - ?, 0) WHERE id = ?"
    else:
        enough, deduct = True, "UPDATE goods SET left_over = left_over - ?1 WHERE id = ?2 AND left_over >= ?1"
    with Transaction() as tx:
        row = tx.execute(
            "SELECT t.token, t.buyer, t.goods, t.count, g.price, g.each, g.hold FROM tickets t JOIN goods g ON g.id = t.goods "
            "WHERE t.id = ? AND t.code IS NULL", (ticket,)).fetchone()
        if row is None:
            return
        token, buyer, goods, count, price, each, hold = row
        has = tx.execute("SELECT coalesce(sum(count), 0) FROM orders WHERE buyer = ? AND goods = ? AND status IN ('WAIT_PAY', 'PAID')",
                         (buyer, goods)).fetchone()[0]
        code, no = OK, None
        if has + count > each:
            code = LIMIT
        elif not enough or tx.execute(deduct, (count, goods)).rowcount == 0:
            code = SOLD_OUT
        else:
            no = f"A{ticket}"
            tx.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, 'WAIT_PAY', ?, ?)", (no, buyer, goods, count, price, token, now() + hold))
            note(tx, "reserve", no)
        tx.execute("UPDATE tickets SET code = ?, order_no = ? WHERE id = ?", (code, no, ticket))


def shown(no):
    count, price, status = db().execute("SELECT count, price, status FROM orders WHERE no = ?", (no,)).fetchone()
    return {"orderNo": no, "orderStatus": status, "total": money(count * price)}


def progress(buyer, ticket):
    row = db().execute("SELECT code, order_no FROM tickets WHERE id = ? AND buyer = ?", (ticket, buyer)).fetchone()
    if row is None:
        return UNKNOWN, None
    code, no = row
    if code is None:
        return OK, {"status": "WAITING"}
    return code, {"status": "DONE", **shown(no)} if code == OK else None


def pay(buyer, no):
    with Transaction() as tx:
        row = tx.execute("SELECT status, until FROM orders WHERE no = ? AND buyer = ?", (no, buyer)).fetchone()
        if row is None:
            return UNKNOWN, None
        status, until = row
        if status == "WAIT_PAY" and now() < until:
            tx.execute("UPDATE orders SET status = 'PAID' WHERE no = ?", (no,))
            note(tx, "pay", no)
        elif status != "PAID":
            return CLOSED, None
    return OK, shown(no)


def sweep():
    """Gives back what was not paid in time."""
    while True:
        time.sleep(0.05)
        for no, goods, count in db().execute("SELECT no, goods, count FROM orders WHERE status = 'WAIT_PAY' AND until < ?", (now(),)).fetchall():
            with Transaction() as tx:
                if tx.execute("UPDATE orders SET status = 'CLOSED' WHERE no = ? AND status = 'WAIT_PAY'", (no,)).rowcount:
                    tx.execute("UPDATE goods SET left_over = left_over + ? WHERE id = ?", (count, goods))
                    note(tx, "release", no, "timeout")


def work(bug):
    while True:
        try:
            decide(waiting.get(), bug)
        except sqlite3.Error as error:
            print(f"a ticket was not decided: {error}", file=sys.stderr)


# --- HTTP -------------------------------------------------------------------------------------------------------------


def sign(buyer):
    return hmac.new(SECRET, buyer.encode(), hashlib.sha256).hexdigest()[:16]


def advertised():
    """What else might be bought: nobody waits for it for long."""
    try:
        with urllib.request.urlopen(f"http://{ASKED_FOR_ADS}/", timeout=0.2) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def answer(self, code, data=None, cookie=None):
        body = json.dumps({"code": code, "msg": MESSAGES[code], "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if cookie:
            self.send_header("Set-Cookie", f"SHOPSID={cookie}; HttpOnly; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def buyer(self):
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        buyer, _, proof = next((value for name, _, value in pairs if name == "SHOPSID"), "").rpartition(".")
        return buyer if buyer and hmac.compare_digest(proof, sign(buyer)) else None

    def do_GET(self):
        path = urlsplit(self.path)
        parts = path.path.strip("/").split("/")
        if parts[0] == "goods":
            row = db().execute("SELECT id, left_over, price FROM goods WHERE id = ?", (int(parts[1]),)).fetchone()
            return self.answer(OK, {"id": row[0], "left": row[1], "price": money(row[2]), "ads": advertised()}) if row else self.answer(UNKNOWN)
        if (buyer := self.buyer()) is None:
            return self.answer(LOG_IN)
        if parts[0] == "queue":
            return self.answer(*progress(buyer, int(parts[1].removeprefix("q-"))))
        if parts[0] == "mine":
            token = parse_qs(path.query).get("token", [""])[0]
            known = db().execute("SELECT id FROM tickets WHERE token = ? AND buyer = ?", (token, buyer)).fetchone()
            return self.answer(OK, {"queue": f"q-{known[0]}"}) if known else self.answer(UNKNOWN)
        return self.answer(UNKNOWN)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        parts = self.path.strip("/").split("/")
        if parts[0] == "login":
            return self.answer(OK, cookie=f"{form['user']}.{sign(form['user'])}")
        if (buyer := self.buyer()) is None:
            return self.answer(LOG_IN)
        if parts[0] == "seckill":
            return self.answer(*accept(buyer, int(parts[1]), int(form["count"]), form["token"]))
        if parts[0] == "pay":
            return self.answer(*pay(buyer, form["order"]))
        return self.answer(UNKNOWN)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class Ads(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(["a kettle", "a lamp"]).encode())


def serve(bug):
    db().executescript(SCHEMA)
    for (ticket,) in db().execute("SELECT id FROM tickets WHERE code IS NULL").fetchall():
        waiting.put(ticket)
    for _ in range(4):
        threading.Thread(target=work, args=(bug,), daemon=True).start()
    threading.Thread(target=sweep, daemon=True).start()
    Server((HOST, int(PORT)), Handler).serve_forever()


# --- what the adapter needs -------------------------------------------------------------------------------------------


def setup():
    """Puts the sale on that the rehearsal asks for, and forgets everything else."""
    db().executescript(SCHEMA)
    with Transaction() as tx:
        for table in ("goods", "tickets", "orders", "log"):
            tx.execute(f"DELETE FROM {table}")
        for item in json.loads(os.environ["SECKILL_ITEMS"]):
            tx.execute("INSERT INTO goods VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
                item["id"], item["stock"], item["stock"], item["price_cents"], item["per_user_limit"],
                item["opens_at"], item["closes_at"], item["hold_ms"] * 1000))


STATES = {"WAIT_PAY": "held", "PAID": "paid", "CLOSED": "expired"}


def audit():
    """Prints stock and ledger from one snapshot, in the rehearsal's words."""
    db().execute("BEGIN")
    as_of = now()
    stock = [{"item": id, "initial": total, "available": left_over}
             for id, total, left_over in db().execute("SELECT id, total, left_over FROM goods")]
    ledger = []
    for seq, at, what, no, why, goods, buyer, count, price, status, token, until in db().execute(
            "SELECT l.seq, l.at, l.what, l.no, l.why, o.goods, o.buyer, o.count, o.price, o.status, o.token, o.until "
            "FROM log l JOIN orders o ON o.no = l.no ORDER BY l.seq"):
        row = {"seq": seq, "at": at, "kind": what, "order": no, "item": goods, "user": buyer, "quantity": count}
        if what == "reserve":
            row |= {"key": token, "state": STATES[status], "expires_at": until, "amount_cents": count * price}
        elif what == "pay":
            row |= {"amount_cents": count * price}
        ledger.append(row | {"reason": why} if why else row)
    json.dump({"as_of": as_of, "stock": stock, "ledger": ledger}, sys.stdout)


def cleanup():
    """Takes the orders of the rehearsal's buyers away."""
    mine = (os.environ["SECKILL_USER_PREFIX"] + "%",)
    with Transaction() as tx:
        tx.execute("DELETE FROM log WHERE no IN (SELECT no FROM orders WHERE buyer LIKE ?)", mine)
        tx.execute("DELETE FROM orders WHERE buyer LIKE ?", mine)
        tx.execute("DELETE FROM tickets WHERE buyer LIKE ?", mine)


def verify():
    left = db().execute("SELECT count(*) FROM orders WHERE buyer LIKE ?", (os.environ["SECKILL_USER_PREFIX"] + "%",)).fetchone()[0]
    sys.exit(f"{left} orders of the rehearsal are left" if left else 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["serve", "ads", "setup", "audit", "cleanup", "verify"])
    parser.add_argument("--bug", choices=["oversell"])
    asked = parser.parse_args()
    if asked.what == "serve":
        serve(asked.bug)
    elif asked.what == "ads":
        host, port = ADS.rsplit(":", 1)
        Server((host, int(port)), Ads).serve_forever()
    else:
        {"setup": setup, "audit": audit, "cleanup": cleanup, "verify": verify}[asked.what]()


if __name__ == "__main__":
    main()
