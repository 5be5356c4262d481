//! A forecast for people: what a manager reads first, then what it rests on. Markdown, which also reads well in a
//! terminal, and a page.

use askama::Template;

use super::chart::forecast as chart;
use super::{ReportError, format};
use crate::forecast::{Compared, Forecast};

/// A table: its head, and its rows.
struct Table {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Sentences below it.
    below: Vec<String>,
}

fn us(value: f64) -> String {
    format::micros(value.max(0.0) as u64)
}

fn interval(ends: Option<[f64; 2]>, shown: impl Fn(f64) -> String) -> String {
    ends.map_or(format::NONE.to_owned(), |[low, high]| format!("{} to {}", shown(low), shown(high)))
}

fn money(forecast: &Forecast, amount: f64) -> String {
    format!("{amount:.2} {}", format::one_line(&forecast.plan.currency))
}

/// What stands before everything else if the plan is not to be relied on.
fn warnings(forecast: &Forecast) -> Vec<String> {
    let mut out = Vec::new();
    if !forecast.validated {
        let judged = forecast.validation.iter().filter(|row| row.judged);
        let close = judged.clone().filter(|row| row.goodput.close && row.us_p99.close).count();
        out.push(format!(
            "Not validated: of {} that were held back below the capacity, {close} were predicted closely enough \
             (goodput within 10%, TP99 within 20%; three or more, and all of them, have to be). Do not rely on the \
             figures below: measure again, for longer and on a machine that has nothing else to do.",
            format::plural(judged.count() as u64, "rate")
        ));
    }
    out.extend(
        forecast.refusals.iter().map(|refusal| format!("Refused: {}. What to do: {}.", refusal.why, refusal.remedy)),
    );
    out
}

/// The plan in a paragraph.
fn answer(forecast: &Forecast) -> String {
    let plan = &forecast.plan;
    let nodes: Vec<String> = forecast
        .nodes
        .iter()
        .map(|nodes| {
            let [count, cpus] =
                [(nodes.count, "node"), (nodes.cpus, "processor")].map(|(n, of)| format::plural(u64::from(n), of));
            format!("{count} of {} with {cpus}", nodes.role)
        })
        .collect();
    let limited: Vec<String> = forecast
        .latency
        .iter()
        .filter_map(|latency| {
            let limit = latency.limit_us?;
            Some(format!(
                "TP99 of {} is expected to be {} ({} is the limit)",
                latency.step,
                us(latency.us_p99),
                us(limit)
            ))
        })
        .collect();
    let sold_out = match forecast.sold_out_after_s {
        Some(at) => {
            format!("The stock of {} is sold {} after the opening", format::count(plan.stock), format::millis(at * 1e3))
        }
        None => format!("The stock of {} is not sold out", format::count(plan.stock)),
    };
    let opens = if plan.opens.is_empty() { String::new() } else { format!(" at {}", format::one_line(&plan.opens)) };
    let holds = if forecast.validated && forecast.refusals.is_empty() {
        "take"
    } else {
        "would take, were everything as measured,"
    };
    format!(
        "{} buyers{opens}, {} a second at the busiest moment, {holds} {}, for {} in {} hours. {}. {sold_out}. {}% \
         more may come.",
        format::count(plan.buyers),
        format::number(forecast.peak_arrivals_per_second),
        nodes.join(", "),
        money(forecast, forecast.cost),
        format::number(plan.hours),
        limited.join("; "),
        format::number(plan.headroom * 100.0)
    )
}

fn tables(forecast: &Forecast) -> Vec<Table> {
    vec![nodes(forecast), latency(forecast), funnel(forecast), fleet(forecast), validation(forecast), demand(forecast)]
}

fn nodes(forecast: &Forecast) -> Table {
    let mut rows: Vec<Vec<String>> = forecast
        .nodes
        .iter()
        .map(|nodes| {
            vec![
                nodes.role.clone(),
                nodes.count.to_string(),
                nodes.cpus.to_string(),
                format!("{:.0}%", nodes.used * 100.0),
                money(forecast, nodes.cost),
            ]
        })
        .collect();
    rows.push(vec!["all".into(), String::new(), String::new(), String::new(), money(forecast, forecast.cost)]);
    let below = vec![format!("The item's stock lies in {}.", format::plural(u64::from(forecast.shards), "row"))];
    Table {
        title: "Nodes and cost",
        head: vec!["role", "nodes", "processors of each", "in use at the peak", "cost"],
        rows,
        below,
    }
}

fn latency(forecast: &Forecast) -> Table {
    let rows = forecast.latency.iter().map(|latency| {
        vec![
            latency.step.clone(),
            us(latency.us_p99),
            interval(latency.interval, us),
            us(latency.us_p99_with_headroom),
            latency.limit_us.map_or(format::NONE.to_owned(), us),
        ]
    });
    Table {
        title: "TP99 in the busiest time",
        head: vec!["step", "TP99", "95% interval", "with the headroom used up", "limit"],
        rows: rows.collect(),
        below: Vec::new(),
    }
}

fn funnel(forecast: &Forecast) -> Table {
    let row = |funnel: &crate::forecast::Funnel| {
        let share = funnel.buyers.map_or(format::NONE.to_owned(), |n| format::percent(n, forecast.plan.buyers));
        vec![funnel.name.clone(), funnel.buyers.map_or("not measured".to_owned(), format::count), share]
    };
    Table {
        title: "Buyers",
        head: vec!["so many", "buyers", "of all"],
        rows: forecast.funnel.iter().map(row).collect(),
        below: Vec::new(),
    }
}

fn fleet(forecast: &Forecast) -> Table {
    let rows = forecast.fleet.iter().map(|fleet| {
        vec![
            fleet.shards.to_string(),
            format::number(fleet.requests_per_second),
            format::number(fleet.requests_per_cpu_s),
            money(forecast, fleet.cost),
        ]
    });
    let below = match &forecast.fleet {
        Some(_) => {
            "fleet/ beside this page has the manifests: kubectl apply -k fleet, once your scenario and your image \
             stand in it."
        }
        None => "The generator's efficiency was not measured.",
    };
    Table {
        title: "Generators to rehearse it at this scale",
        head: vec!["shards", "requests per second", "one makes with a CPU-second", "cost"],
        rows: rows.collect(),
        below: vec![below.to_owned()],
    }
}

fn validation(forecast: &Forecast) -> Table {
    let close = |compared: &Compared| if compared.close { "yes" } else { "no" }.to_owned();
    let rows = forecast.validation.iter().map(|row| {
        vec![
            format::number(row.rate),
            format!("{} ({})", format::number(row.goodput.predicted), interval(row.goodput.interval, format::number)),
            row.goodput.measured.map_or(format::NONE.to_owned(), format::number),
            close(&row.goodput),
            format!("{} ({})", us(row.us_p99.predicted), interval(row.us_p99.interval, us)),
            row.us_p99.measured.map_or(format::NONE.to_owned(), us),
            close(&row.us_p99),
            if row.judged { "yes" } else { "no: at the capacity or beyond" }.to_owned(),
        ]
    });
    let model = &forecast.model;
    let below = vec![
        "Each rate was predicted by a queue that was fitted to the others only; the lowest is needed by all, for the \
         undisturbed latency."
            .to_owned(),
        format!(
            "What gives out first: {}, at {} arrivals per second on the machine that was measured. Its service times \
             have a squared coefficient of variation of {}; the undisturbed latency counts {} times. Fitted points \
             are off by a factor of {} in the mean.",
            format::one_line(&model.resource),
            format::number(model.capacity),
            format::number(model.variation),
            format::number(model.factor),
            format::number(model.off)
        ),
    ];
    Table {
        title: "What it rests on: rates that were held back",
        head: vec![
            "arrivals/s",
            "orders/s predicted",
            "measured",
            "within 10%",
            "TP99 predicted",
            "measured",
            "within 20%",
            "counts",
        ],
        rows: rows.collect(),
        below,
    }
}

fn demand(forecast: &Forecast) -> Table {
    let rows = forecast.demand.iter().map(|demand| {
        vec![
            demand.role.clone(),
            format::number(demand.cpu_s_per_1000),
            interval(Some(demand.interval), format::number),
            format::number(demand.at_rest),
        ]
    });
    Table {
        title: "Processor time",
        head: vec!["role", "CPU-seconds for 1,000 arrivals", "95% interval", "CPU-seconds of a probe without any"],
        rows: rows.collect(),
        below: Vec::new(),
    }
}

/// The forecast as Markdown.
pub fn markdown(forecast: &Forecast) -> String {
    let mut out = format!("# {}: forecast\n\n", format::one_line(&forecast.title));
    for warning in warnings(forecast) {
        out.push_str(&format!("**{warning}**\n\n"));
    }
    out.push_str(&format!("{}\n", answer(forecast)));
    for table in tables(forecast) {
        out.push_str(&format!("\n## {}\n\n", table.title));
        if !table.rows.is_empty() {
            let mut lines = vec![table.head.iter().map(|head| (*head).to_owned()).collect()];
            lines.extend(table.rows);
            out.push_str(&format::markdown_table(&lines));
        }
        table.below.iter().for_each(|line| out.push_str(&format!("\n{line}\n")));
    }
    out.push_str("\n## What would break it\n\n");
    forecast.assumptions.iter().for_each(|line| out.push_str(&format!("- {line}\n")));
    out
}

#[derive(Template)]
#[template(path = "forecast.html")]
struct Page<'a> {
    forecast: &'a Forecast,
    warnings: Vec<String>,
    answer: String,
    tables: Vec<Table>,
    chart: Option<String>,
    validation: Option<String>,
}

/// The page, which opens offline.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(forecast: &Forecast) -> Result<String, ReportError> {
    let (chart, validation) = (chart::draw(forecast)?, chart::draw_validation(forecast)?);
    let (warnings, answer, tables) = (warnings(forecast), answer(forecast), tables(forecast));
    Ok(Page { forecast, warnings, answer, tables, chart, validation }.render()?)
}
