//! Figures, and how they are shown.

use serde::Serialize;
use serde_json::json;

use crate::load::{Figure, Load, Side, Transport};
use crate::{Flavour, Options};

/// All rounds of one load over one transport.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) transport: Transport,
    ours: Vec<Figure>,
    raw: Vec<Figure>,
}

/// A row, summed up.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    unit: &'static str,
    ours: f64,
    raw: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ours_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_p99: Option<f64>,
    /// The median of the ratios of the rounds, with the least and the greatest.
    ratio: f64,
    least: f64,
    greatest: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<bool>,
}

impl Row {
    pub(crate) fn new(load: Load, transport: Transport) -> Self {
        Self { load, transport, ours: Vec::new(), raw: Vec::new() }
    }

    /// What `--only` looks at.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.load, self.transport)
    }

    pub(crate) fn add(&mut self, side: Side, figure: Figure) {
        match side {
            Side::Ours => self.ours.push(figure),
            Side::Raw => self.raw.push(figure),
        }
    }

    fn summary(&self) -> Summary {
        let values = |figures: &[Figure]| median(figures.iter().map(|figure| figure.value).collect());
        let p99 = |figures: &[Figure]| {
            let known: Vec<f64> = figures.iter().filter_map(|figure| figure.p99).collect();
            (!known.is_empty()).then(|| median(known))
        };
        let mut ratios: Vec<f64> =
            self.ours.iter().zip(&self.raw).map(|(ours, raw)| ours.value / raw.value).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = median(ratios.clone());
        let bar = self.load.bar();
        Summary {
            name: self.name(),
            unit: self.load.unit(),
            ours: values(&self.ours),
            raw: values(&self.raw),
            ours_p99: p99(&self.ours),
            raw_p99: p99(&self.raw),
            ratio,
            least: ratios.first().copied().unwrap_or_default(),
            greatest: ratios.last().copied().unwrap_or_default(),
            bar,
            pass: bar.map(|bar| if self.load.lower_is_better() { ratio <= bar } else { ratio >= bar }),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[middle - 1], *upper),
    }
}

/// Prints all rows.
pub(crate) fn print(rows: &[Row], options: &Options) -> anyhow::Result<()> {
    let rows: Vec<Summary> = rows.iter().map(Row::summary).collect();
    if options.json {
        let whole = json!({
            "rounds": options.rounds,
            "short": options.short,
            "runtime": options.runtime,
            "spin": !options.no_spin,
            "rows": rows,
        });
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    let runtime = match options.runtime {
        Flavour::Multi => "tokio with 2 workers",
        Flavour::Current => "tokio on one thread",
    };
    println!("Medians of {} rounds, two processes on loopback, each {runtime}.", options.rounds);
    if options.short {
        println!("SHORT: sizes too small for the figures to mean anything.");
    }
    println!("{:<13} {:>9} {:>9} {:>8} {:>6} {:>13}  bar", "load", "ours", "raw", "unit", "ratio", "range");
    for row in &rows {
        let bar = match (row.bar, row.pass) {
            (Some(bar), Some(pass)) => format!("{bar} {}", if pass { "pass" } else { "MISSED" }),
            _ => String::from("-"),
        };
        let range = format!("{:.2} - {:.2}", row.least, row.greatest);
        let (ours, raw) = (short(row.ours), short(row.raw));
        println!("{:<13} {ours:>9} {raw:>9} {:>8} {:>6.2} {range:>13}  {bar}", row.name, row.unit, row.ratio);
        if let (Some(ours), Some(raw)) = (row.ours_p99, row.raw_p99) {
            let (ours_p99, raw_p99) = (short(ours), short(raw));
            println!("{:<13} {ours_p99:>9} {raw_p99:>9} {:>8} {:>6.2}", "", "µs p99", ours / raw);
        }
    }
    Ok(())
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}
