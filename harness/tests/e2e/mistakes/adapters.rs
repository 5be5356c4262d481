//! What can be wrong with an adapter to somebody else's shop.

use super::Mistake;

pub const SHOP: &str = include_str!("../../../../scenarios/adapted-shop/sale.toml");

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a rule without a condition",
        replace: ("at = \"/code\"\nis = 0\n", ""),
        line: "[[outcome]]",
        says: &["[[outcome]]: outcome: no condition is given", "at = \"/code\", is = 1001, means = \"fail\""],
    },
    Mistake {
        name: "a rule that means nothing known",
        replace: ("means = \"ok\"", "means = \"fine\""),
        line: "means = \"fine\"",
        says: &["unknown variant `fine`", "`ok`, `fail`, `info`, `pending`"],
    },
    Mistake {
        name: "an expression that is none",
        replace: ("matches = \"^q-\"", "matches = \"^q-(\""),
        line: "matches = \"^q-(\"",
        says: &["step \"order\": outcome: `^q-(` is no regex"],
    },
    Mistake {
        name: "a page that is pending",
        replace: ("is = 0\nmeans = \"ok\"", "is = 0\nmeans = \"pending\""),
        line: "[[outcome]]",
        says: &["`pending` is about an order", "means = \"ok\", \"fail\" or \"info\""],
    },
    Mistake {
        name: "a reason given twice",
        replace: ("reason_at = \"/msg\"", "reason = \"no\"\nreason_at = \"/msg\""),
        line: "reason_at = \"/msg\"",
        says: &["`reason` and `reason_at` are both given"],
    },
    Mistake {
        name: "a scale of nothing",
        replace: ("amount = \"/data/total\"", "scale = 10"),
        line: "scale = 10",
        says: &["reply.scale is about reply.amount", "amount = \"/data/price\", scale = 100"],
    },
    Mistake {
        name: "a state that is none of ours",
        replace: ("WAIT_PAY = \"held\"", "WAIT_PAY = \"waiting\""),
        line: "WAIT_PAY = \"waiting\"",
        says: &["unknown variant `waiting`", "`held`"],
    },
    Mistake {
        name: "two ways to the books",
        replace: ("audit_command", "audit = \"127.0.0.1:1\"\naudit_command"),
        line: "audit_command",
        says: &["has both `audit` and `audit_command`", "`sql` is for a Postgres"],
    },
    Mistake {
        name: "the database of somebody else",
        replace: (
            "audit_command = [\"python3\", \"scenarios/adapted-shop/shop.py\", \"audit\"]",
            "sql = { url = \"postgres://shop@192.0.2.7/shop\", stock = \"SELECT 1\", ledger = \"SELECT 1\" }",
        ),
        line: "sql = {",
        says: &["target.external.sql.url: `192.0.2.7` is not this machine", "target.external.allow"],
    },
    Mistake {
        name: "a query that is none",
        replace: (
            "audit_command = [\"python3\", \"scenarios/adapted-shop/shop.py\", \"audit\"]",
            "sql = { url = \"postgres://shop@127.0.0.1/shop\", stock = \"DELETE FROM goods\", ledger = \"SELECT 1\" }",
        ),
        line: "sql = {",
        says: &["target.external.sql.stock is no query", "can only read"],
    },
    Mistake {
        name: "a command without a program",
        replace: ("setup = [\"python3\", \"scenarios/adapted-shop/shop.py\", \"setup\"]", "setup = []"),
        line: "setup = []",
        says: &["target.external.setup names no program", "without a shell"],
    },
    Mistake {
        name: "a tag that is no header",
        replace: ("[target.external]\n", "[target.external]\ntag = \"x rehearsal\"\n"),
        line: "tag = \"x rehearsal\"",
        says: &["`x rehearsal` is no name of a header", "\"\" for none"],
    },
    Mistake {
        name: "a process that nobody can start",
        replace: ("ready = \"127.0.0.1:8097\"", "ready = \"127.0.0.1:8097\"\ncontainer = \"ads\""),
        line: "[target.external.process.ads]",
        says: &["target.external.process.ads does not say in one way which process it is", "pid_file", "container"],
    },
    Mistake {
        name: "a process of the shop that is not there",
        replace: ("inject.kill = { role = \"service\" }", "inject.kill = { role = \"postgres\" }"),
        line: "role = \"postgres\"",
        says: &["there is no process \"postgres\"", "the processes of this stack are ads, service"],
    },
    Mistake {
        name: "a link of the shop that is not there",
        replace: ("link = \"service→ads\"", "link = \"service→redis\""),
        line: "link = \"service→redis\"",
        says: &["there is no link \"service→redis\"", "client→service, service→ads"],
    },
    Mistake {
        name: "a proxy that anybody could use",
        replace: ("listen = \"127.0.0.1:8098\"", "listen = \"0.0.0.0:8098\""),
        line: "[target.external.link",
        says: &["`0.0.0.0:8098` is no address on loopback"],
    },
    Mistake {
        name: "a link to somebody else",
        replace: ("upstream = \"127.0.0.1:8097\"", "upstream = \"192.0.2.7:80\""),
        line: "[target.external.link",
        says: &["upstream: \"192.0.2.7:80\" is not this machine", "allow = "],
    },
];
