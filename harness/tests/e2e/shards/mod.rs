//! Several generators for one run: what is recorded by shards and merged is what one generator would have recorded, what
//! does not belong together is refused, and a shard that is lost is a gap that is told.

mod gaps;
mod recorded;
mod together;

/// The short rehearsal, with faults only on the link that each shard has its own of, and with journeys that end soon.
fn scenario() -> String {
    let short = include_str!("../support/short.toml");
    let (before, after) = short.split_once("# A fault that takes effect").unwrap();
    let (_, end) = after.split_once("[steady_state]").unwrap();
    let fault = "[[fault]]\nid = \"lost-replies\"\nat = \"2s\"\nlasts = \"2s\"\n\
                 inject.cut-reply = { link = \"client→service\", every = 4, match = \"/items/*/orders\" }\n\n";
    let text = format!("{before}{fault}[steady_state]{end}");
    text.replace("virtual_buyers = 300", "virtual_buyers = 300\nrequest_timeout = \"1s\"\npatience = \"500ms\"")
        .replace("attempts = 6", "attempts = 6\nmax = \"200ms\"")
}

#[test]
fn the_scenario_of_the_kubernetes_manifests_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/kubernetes/base/scenario.toml");
    if let Err(error) = harness::scenario::load(std::path::Path::new(path), &[], None) {
        panic!("{error}");
    }
}
