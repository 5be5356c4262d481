//! What the reference service's own messages cost in Protobuf, held against JSON (E2). The service measures them itself, since
//! it is what encodes and decodes them.

use std::process::Command;

use serde::Deserialize;

use super::{Context, Figure, Unmeasured, median};

/// How often they are measured.
const TURNS: usize = 5;

#[derive(Deserialize)]
struct Cost {
    message: String,
    format: String,
    bytes: f64,
    encode_ns: f64,
    decode_ns: f64,
}

/// What of a message is compared: its name, and how it is read.
type Compared = (&'static str, fn(&Cost) -> f64);

const PARTS: [Compared; 3] =
    [("encode", |cost| cost.encode_ns), ("decode", |cost| cost.decode_ns), ("bytes", |cost| cost.bytes)];

/// Encoding and decoding of what a buyer sends and is told, and their lengths.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        context.goes_on()?;
        turns.push(once()?);
    }
    let mut figures = Vec::new();
    for message in ["order", "reply"] {
        for (what, value) in PARTS {
            let of = |turn: &[Cost], format: &str| {
                turn.iter().find(|cost| cost.message == message && cost.format == format).map(value)
            };
            let pairs: Option<Vec<(f64, f64)>> =
                turns.iter().map(|turn| Some((of(turn, "json")?, of(turn, "protobuf")?))).collect();
            let pairs = pairs.ok_or_else(|| Unmeasured::Failed(format!("no figures of the message {message}")))?;
            let (json, _) = median(pairs.iter().map(|(json, _)| *json).collect());
            let (protobuf, _) = median(pairs.iter().map(|(_, protobuf)| *protobuf).collect());
            let (ratio, interval) = median(pairs.iter().map(|(json, protobuf)| json / protobuf).collect());
            let unit = if what == "bytes" { "bytes" } else { "ns" };
            figures.push(
                Figure::new(format!("json_vs_protobuf_{message}_{what}"), ratio, "ratio")
                    .against("Protobuf", interval)
                    .detail(&format!("JSON {json:.0} {unit}, Protobuf {protobuf:.0} {unit}")),
            );
        }
    }
    Ok(figures)
}

fn once() -> Result<Vec<Cost>, Unmeasured> {
    let program = std::env::current_exe()?.with_file_name("seckill-target");
    let output = Command::new(&program).args(["messages", "--output", "json"]).output()?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Unmeasured::Failed(format!("{} messages: {error}", program.display())))
}
