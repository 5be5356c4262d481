//! What can be wrong with the parameters of faults on links.

use super::Mistake;

pub const NETWORK: &str = include_str!("../../../../scenarios/network.toml");

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a direction that does not exist",
        replace: ("direction = \"both\"", "direction = \"sideways\""),
        line: "direction = \"sideways\"",
        says: &["unknown variant `sideways`", "`up`, `down`, `both`", "use one of the names listed"],
    },
    Mistake {
        name: "a distribution that does not exist",
        replace: ("distribution = \"pareto\"", "distribution = \"gauss\""),
        line: "distribution = \"gauss\"",
        says: &["unknown variant `gauss`", "`uniform`, `normal`, `pareto`"],
    },
    Mistake {
        name: "a delay of less than nothing",
        replace: ("distribution = \"pareto\"", "distribution = \"uniform\""),
        line: "distribution = \"uniform\"",
        says: &["fault \"heavy-tail\"", "a jitter of 3ms is more than its delay of 1ms", "distribution = \"pareto\""],
    },
    Mistake {
        name: "more than all connections",
        replace: ("after = \"250ms\", fraction = 0.5", "after = \"250ms\", fraction = 1.5"),
        line: "fraction = 1.5",
        says: &["`fraction` is 1.5", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "no connection at all",
        replace: ("after = \"250ms\", fraction = 0.5", "after = \"250ms\", fraction = 0.0"),
        line: "fraction = 0.0",
        says: &["`fraction` is 0", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "pieces of nothing",
        replace: ("size = 60, variation = 30", "size = 0"),
        line: "size = 0",
        says: &["fault \"small-pieces\": `size` is 0", "at least 1 byte"],
    },
    Mistake {
        name: "pieces that may be nothing",
        replace: ("variation = 30", "variation = 60"),
        line: "variation = 60",
        says: &["`variation` is 60", "less than `size` (60)"],
    },
    Mistake {
        name: "a line that carries nothing",
        replace: ("bytes_per_second = 20000", "bytes_per_second = 0"),
        line: "bytes_per_second = 0",
        says: &["fault \"thin-line\": `bytes_per_second` is 0", "a black hole lets nothing through"],
    },
    Mistake {
        name: "a copy that comes when all is over",
        replace: ("after = \"300ms\"", "after = \"300s\""),
        line: "after = \"300s\"",
        says: &["fault \"twice-and-late\": `after` is 300s", "a minute is the most"],
    },
    Mistake {
        name: "a status that is no answer",
        replace: ("status = 503", "status = 101"),
        line: "status = 101",
        says: &["fault \"unavailable\": `status` is 101", "from 200 to 599"],
    },
    Mistake {
        name: "a share of requests beyond all",
        replace: ("share = 0.3", "share = 3.0"),
        line: "share = 3.0",
        says: &["fault \"unavailable\": `share` is 3", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "two ways to choose requests",
        replace: ("share = 0.3", "share = 0.3, first = 2"),
        line: "first = 2",
        says: &["`share` and `first` both say which calls are struck", "keep one of"],
    },
    Mistake {
        name: "the first of each connection, without how many",
        replace: ("first = 1, of = \"connection\"", "of = \"connection\""),
        line: "of = \"connection\"",
        says: &["`of` is about `first`", "add first = 3"],
    },
    Mistake {
        name: "no call at all",
        replace: ("every = 2, after", "every = 0, after"),
        line: "every = 0",
        says: &["`every` is 0", "1 strikes each"],
    },
    Mistake {
        name: "a body of no kind",
        replace: ("match = \"/items/*/orders\", every = 2 }", "body = \"rubbish\", every = 2 }"),
        line: "body = \"rubbish\"",
        says: &["unknown variant `rubbish`", "`bytes`, `half`, `empty`, `html`"],
    },
    Mistake {
        name: "a link that is never up",
        replace: ("up = \"200ms\"", "up = \"0s\""),
        line: "up = \"0s\"",
        says: &["fault \"flapping\": `up` is 0", "at least 1ms"],
    },
    Mistake {
        name: "a wait of days",
        replace: ("delay = \"100ms\"", "delay = \"48h\""),
        line: "delay = \"48h\"",
        says: &["fault \"slow-to-go\": `delay` is", "a day is the most"],
    },
    Mistake {
        name: "statements where there is no database",
        replace: ("slow-statement = { link = \"service→postgres\"", "slow-statement = { link = \"client→service\""),
        line: "slow-statement",
        says: &["`client→service` does not speak Postgres", "use service→postgres"],
    },
    Mistake {
        name: "requests where there are statements",
        replace: ("garbage-body = { link = \"client→service\"", "garbage-body = { link = \"service→postgres\""),
        line: "garbage-body",
        says: &["`service→postgres` does not speak HTTP", "use client→service"],
    },
    Mistake {
        name: "commands where there is no Redis",
        replace: ("inject.slow-close = {", "inject.slow-command = {"),
        line: "inject.slow-command",
        says: &["`client→service` does not speak Redis", "no link of this stack speaks Redis"],
    },
    Mistake {
        name: "a path that says nothing",
        replace: ("match = \"/items/*/orders\", every = 2 }", "match = \"\", every = 2 }"),
        line: "match = \"\"",
        says: &["`match` is \"\"", "which no path fits", "or leave it out for all"],
    },
    Mistake {
        name: "a path with a query",
        replace: ("match = \"/items/*/orders\", every = 2 }", "match = \"/items/*/orders?x=1\", every = 2 }"),
        line: "orders?x=1",
        says: &["which no path fits", "a path without its query"],
    },
    Mistake {
        name: "a method that says nothing",
        replace: ("method = \"POST\", first = 1", "method = \"\", first = 1"),
        line: "method = \"\"",
        says: &["`method` is \"\"", "one word, such as \"POST\""],
    },
    Mistake {
        name: "a statement that says nothing",
        replace: ("match = \"INSERT INTO orders\"", "match = \"\""),
        line: "inject.slow-statement",
        says: &["`match` is empty", "or leave it out"],
    },
    Mistake {
        name: "a word that says nothing",
        replace: ("match = \"INSERT INTO orders\"", "verb = \"\""),
        line: "verb = \"\"",
        says: &["`verb` is \"\"", "one word, such as \"COMMIT\""],
    },
    Mistake {
        name: "two words where one is looked for",
        replace: ("match = \"INSERT INTO orders\"", "verb = \"INSERT INTO\""),
        line: "verb = \"INSERT INTO\"",
        says: &["with which no call begins", "one word, such as \"COMMIT\""],
    },
    Mistake {
        name: "the first of none",
        replace: ("share = 0.3 }", "first = 0 }"),
        line: "first = 0",
        says: &["`first` is 0, which strikes nobody", "at least 1"],
    },
    Mistake {
        name: "a share of none",
        replace: ("share = 0.3 }", "share = 0.0 }"),
        line: "share = 0.0",
        says: &["`share` is 0", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "a heavy tail of nothing",
        replace: ("jitter = \"3ms\", distribution = \"pareto\"", "distribution = \"pareto\""),
        line: "distribution = \"pareto\"",
        says: &["`distribution` says how `jitter` is spread", "add jitter"],
    },
    Mistake {
        name: "a bell curve of nothing",
        replace: ("jitter = \"20ms\", distribution = \"normal\"", "distribution = \"normal\""),
        line: "distribution = \"normal\"",
        says: &["there is no jitter", "or remove `distribution`"],
    },
    Mistake {
        name: "a reset that comes when all is over",
        replace: ("after = \"80ms\", fraction", "after = \"50s\", fraction"),
        line: "after = \"50s\"",
        says: &["`after` is 50s", "so it never comes to that", "a fault that `lasts` longer"],
    },
    Mistake {
        name: "a parameter of another kind",
        replace: ("inject.refuse = {", "inject.refuse = { after = \"1s\","),
        line: "inject.refuse",
        says: &["unknown field `after`", "correct the key or remove it"],
    },
];
