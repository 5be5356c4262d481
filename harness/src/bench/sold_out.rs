//! What it costs to say "sold out": refusals for each second of the service's processor, held against a bare hyper server that
//! answers everything with the same reply, under the same load through the same proxy. The two take turns.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::{Context, Figure, Unmeasured, median, sale};
use crate::history::INTENTS_PER_ARRIVAL;
use crate::summary::Summary;
use crate::workbench::process_cpu_s;
use crate::workbench::serve::{self, Server};

/// The hidden subcommand of the bare server.
pub const SUBCOMMAND: &str = "__bench-refuser";

/// What the service answers when it is sold out.
const BODY: &str = r#"{"status":409,"title":"Sold out","type":"sold-out"}"#;
/// What it answers when somebody logs in, or asks for the state.
const WELCOME: &str = r#"{"token":"t","available":0}"#;

/// Orders of one buyer after his login: as many as one may make.
const ORDERS: usize = INTENTS_PER_ARRIVAL as usize;
/// Turns of each.
const TURNS: usize = 3;

/// The service with each way to refuse, and the bare server.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let (mut lean, mut chain, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        lean.push(service(context, "on")?);
        chain.push(service(context, "off")?);
        bare.push(bare_server(context)?);
    }
    let ratio = |ours: &[f64]| median(ours.iter().zip(&bare).map(|(a, b)| a / b).collect());
    let ((lean_ratio, lean_interval), (chain_ratio, chain_interval)) = (ratio(&lean), ratio(&chain));
    let against = "a bare hyper server with the same reply";
    Ok(vec![
        rate("sold_out_per_cpu_second", &lean, "the service, E3, E4 and E5 on"),
        rate("sold_out_per_cpu_second_chain", &chain, "the service, E3, E4 and E5 off"),
        rate("bare_hyper_per_cpu_second", &bare, against),
        Figure::new("sold_out_vs_bare_hyper", lean_ratio, "ratio").against(against, lean_interval),
        Figure::new("sold_out_chain_vs_bare_hyper", chain_ratio, "ratio").against(against, chain_interval),
    ])
}

fn rate(name: &str, turns: &[f64], what: &str) -> Figure {
    let (value, _) = median(turns.to_vec());
    Figure::new(name, value, "requests per CPU-second")
        .detail(&format!("{what}; one login for {ORDERS} orders; median of {TURNS} turns"))
}

/// Requests that the service answered for each second of its processor, while one unit is sold and all others ask in vain.
fn service(context: &Context<'_>, switch: &str) -> Result<f64, Unmeasured> {
    let target = format!(
        "target.reference = {{ strategy = \"batch\", pool = 4, deduct = \"order\", switches = {{ E3 = \"{switch}\", E4 = \"{switch}\", E5 = \"{switch}\" }} }}"
    );
    let summary = drive(context, &target)?;
    let cpu_s = summary.cost.cpu_s.get("service").copied().unwrap_or(0.0);
    told(context, &format!("the service, E3-E5 {switch}"), &summary, cpu_s)
}

fn bare_server(context: &Context<'_>) -> Result<f64, Unmeasured> {
    let server = Server::start(&context.cores, SUBCOMMAND, &[])?;
    let summary = drive(context, &format!("target.external = {{ address = \"{}\" }}", server.address))?;
    let said = server.end()?;
    let cpu_s = said.trim().parse().map_err(|_| Unmeasured::Failed("the bare server told no time".to_owned()))?;
    told(context, "the bare server", &summary, cpu_s)
}

/// Requests for each second of processor time; every order but the first has to be a refusal. Each buyer logs in besides.
fn told(context: &Context<'_>, what: &str, summary: &Summary, cpu_s: f64) -> Result<f64, Unmeasured> {
    let sold_out = summary.outcomes.fail.get("sold-out").copied().unwrap_or(0);
    let others = summary.load.requests - sold_out - summary.load.sent;
    if cpu_s <= 0.0 || summary.partial || others > summary.load.requests / 20 {
        return Err(Unmeasured::Failed(format!(
            "{what}: {sold_out} of {} requests were told that it is sold out, in {cpu_s:.2} s of processor time",
            summary.load.requests
        )));
    }
    let rate = summary.load.requests as f64 / cpu_s;
    context.say(&format!("{what}: {rate:.0} requests for each second of its processor"));
    Ok(rate)
}

fn drive(context: &Context<'_>, target: &str) -> Result<Summary, Unmeasured> {
    let text = format!(
        r#"
name = "bench-sold-out"
{target}
item = [{{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "1s" }}]
load = {{ duration = "4s", virtual_buyers = 64, request_timeout = "5s", patience = "200ms", send_lag_limit = "1s" }}
steady_state = {{ step = "state", within = "2s", every = "500ms" }}
audit = {{ drain_probe = false, grace = "0s" }}
{sale}"#,
        sale = sale::buyers(ORDERS, 1_500),
    );
    sale::rehearse(context, &text)
}

/// What the bare server's process does. Returns its exit code.
pub fn main() -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the bare server of the measurement: {error}");
            1
        }
    }
}

async fn serve() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(serve::listen(|| format!("{}", process_cpu_s()))?)?;
    loop {
        let (stream, _): (_, SocketAddr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            // A client that hangs up is none of its business.
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let order = request.method() == Method::POST && request.uri().path().ends_with("/orders");
    let (status, media_type, body) = match (order, request.method() == Method::POST) {
        (true, _) => (409, "application/problem+json", BODY),
        (false, true) => (201, "application/json", WELCOME),
        (false, false) => (200, "application/json", WELCOME),
    };
    // A body that is not read would cost the connection.
    let _ = request.into_body().collect().await;
    let response = Response::builder()
        .status(status)
        .header("content-type", media_type)
        .header("cache-control", "no-store")
        .header("x-served-by-tier", "service")
        .header("x-degrade-level", "0")
        .body(Full::new(Bytes::from_static(body.as_bytes())));
    Ok(response.unwrap_or_else(|_| Response::new(Full::default())))
}
