//! The rounds: ours and raw in turn, over fresh connections between fresh processes.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use vitte_net::Secret;

use crate::far::{Far, Part};
use crate::load::{Figure, Load, Side, Transport};
use crate::spin::Awake;
use crate::table::{Row, print};
use crate::{Options, ours, raw};

/// One measurement takes seconds; this long means that it hangs.
const HANGS: Duration = Duration::from_secs(120);

enum Near {
    Ours(ours::Near),
    Raw(raw::Near),
}

/// Both processes of a side.
struct Pair {
    side: Side,
    far: Far,
    near: Near,
}

impl Pair {
    async fn start(side: Side, transport: Transport, options: &Options) -> anyhow::Result<Self> {
        let secret = Secret::generate();
        let part = Part { side, transport, runtime: options.runtime };
        let far = Far::start(&part, &secret).await?;
        let near = match side {
            Side::Ours => Near::Ours(ours::Near::connect(&far.address, secret).await?),
            Side::Raw => Near::Raw(raw::Near::connect(transport, far.address.parse()?).await?),
        };
        Ok(Self { side, far, near })
    }

    async fn run(&mut self, load: Load, amount: u64) -> anyhow::Result<Figure> {
        let figure = async {
            match &mut self.near {
                Near::Ours(near) => near.run(load, amount).await,
                Near::Raw(near) => near.run(load, amount).await,
            }
        };
        timeout(HANGS, figure).await.context("it hangs")?
    }

    async fn end(self) -> anyhow::Result<()> {
        drop(self.near);
        self.far.end().await
    }
}

/// Measures everything that was asked for, and prints it.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for transport in Transport::ALL {
        for load in Load::ALL {
            let row = Row::new(load, transport);
            if options.only.is_empty() || options.only.iter().any(|only| row.name().contains(only.as_str())) {
                rows.push(row);
            }
        }
    }
    anyhow::ensure!(!rows.is_empty(), "no measurement has such a name");
    for round in 0..options.rounds {
        for transport in Transport::ALL {
            let rows: Vec<_> = rows.iter_mut().filter(|row| row.transport == transport).collect();
            measure(round, transport, rows, &options).await?;
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    print(&rows, &options)
}

async fn measure(
    round: u32,
    transport: Transport,
    rows: Vec<&mut Row>,
    options: &Options,
) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sides = [Side::Ours, Side::Raw];
    if round % 2 == 1 {
        // Who goes first changes from round to round.
        sides.reverse();
    }
    let [first, second] = sides;
    let mut pairs =
        [Pair::start(first, transport, options).await?, Pair::start(second, transport, options).await?];
    for row in rows {
        let amount = row.load.amount(options.short);
        let awake = (row.load == Load::Sequential && !options.no_spin).then(Awake::keep);
        for pair in &mut pairs {
            let figure = pair.run(row.load, amount).await;
            let figure = figure.with_context(|| format!("{}, {}", row.name(), pair.side))?;
            row.add(pair.side, figure);
        }
        drop(awake);
    }
    for pair in pairs {
        pair.end().await?;
    }
    Ok(())
}
