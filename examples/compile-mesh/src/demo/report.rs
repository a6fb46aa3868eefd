//! What the demo ends with: a table or JSON, and whether all of it held.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::demo::Transport;
use crate::demo::fault::{Fault, MOVED_WITHIN, Struck, standing};
use crate::demo::fleet::Worker;
use crate::pool::Pool;

/// One file.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// Its name below the source folder.
    pub(crate) file: String,
    /// Who compiled it.
    pub(crate) worker: Option<String>,
    /// How it went there and back.
    pub(crate) transport: Option<String>,
    /// Bytes of the preprocessed source.
    pub(crate) bytes_in: usize,
    /// Bytes of the object.
    pub(crate) bytes_out: usize,
    /// Time from the pool to the object, waiting for room included.
    pub(crate) milliseconds: u64,
    /// How often it was sent in vain.
    pub(crate) retries: u32,
    /// Whether a local compile gives the same bytes; none if that was not asked.
    pub(crate) identical: Option<bool>,
    /// What the compiler said.
    pub(crate) diagnostics: String,
    /// Why there is no object.
    pub(crate) error: Option<String>,
}

/// What became of the worker that was taken away.
#[derive(Debug, Serialize)]
pub(crate) struct Loss {
    /// What was done to it.
    fault: Fault,
    /// Which worker; none if there never was a right moment.
    worker: Option<String>,
    /// How it was reached.
    transport: Option<String>,
    /// Milliseconds until the mesh noticed.
    noticed_ms: Option<u64>,
    /// Jobs that other workers took.
    moved_jobs: u32,
    /// Milliseconds until the last of them was taken.
    moved_ms: Option<u64>,
}

/// One thing that had to hold.
#[derive(Debug, Serialize)]
struct Bar {
    what: &'static str,
    held: bool,
}

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    held: bool,
    bars: Vec<Bar>,
    milliseconds: u64,
    loss: Option<Loss>,
    /// What the script printed, or why there is nothing.
    lua: Option<Result<String, String>>,
    files: Vec<Row>,
}

impl Report {
    /// Judges a run.
    pub(crate) fn new(
        files: Vec<Row>,
        took: Duration,
        transports: &[Transport],
        fault: Option<(Fault, Option<Struck>)>,
        (pool, fleet): (&Pool, &[Worker]),
        lua: Option<Result<String, String>>,
    ) -> Self {
        let loss = fault.map(|(fault, struck)| Loss::new(fault, struck, pool, fleet));
        let wanted: BTreeSet<String> = transports.iter().map(ToString::to_string).collect();
        let used: BTreeSet<String> = files.iter().filter_map(|row| row.transport.clone()).collect();
        let mut bars = vec![
            Bar {
                what: "every file compiled on a worker",
                held: files.iter().all(|row| row.error.is_none() && row.worker.is_some()),
            },
            Bar { what: "every transport carried a file", held: wanted.is_subset(&used) },
        ];
        if let Some(loss) = &loss {
            let held = loss.moved_jobs > 0 && loss.moved_ms.is_some_and(|ms| ms <= millis(MOVED_WITHIN));
            bars.push(Bar { what: "the lost worker's jobs ran elsewhere within 3 s", held });
        }
        if files.iter().any(|row| row.identical.is_some()) {
            let held = files.iter().all(|row| row.identical == Some(true));
            bars.push(Bar { what: "objects are those of a local compile", held });
        }
        if let Some(ran) = &lua {
            bars.push(Bar { what: "they link, and the script runs", held: ran.is_ok() });
        }
        let held = bars.iter().all(|bar| bar.held);
        Self { held, bars, milliseconds: millis(took), loss, lua, files }
    }

    /// Whether everything held.
    pub(crate) fn held(&self) -> bool {
        self.held
    }

    /// Prints it to standard output.
    ///
    /// # Errors
    ///
    /// Standard output takes nothing.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.text()? };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let width = self.files.iter().map(|row| row.file.len()).max().unwrap_or_default().max(4);
        writeln!(
            text,
            "{:width$}  {:8}  {:9}  {:>9}  {:>9}  {:>6}  {:>7}",
            "file", "worker", "transport", "bytes in", "bytes out", "ms", "retries"
        )?;
        for row in &self.files {
            let (worker, transport) = (row.worker.as_deref(), row.transport.as_deref());
            write!(
                text,
                "{:width$}  {:8}  {:9}  {:>9}  {:>9}  {:>6}  {:>7}",
                printable(&row.file),
                worker.unwrap_or("-"),
                transport.unwrap_or("-"),
                row.bytes_in,
                row.bytes_out,
                row.milliseconds,
                row.retries
            )?;
            writeln!(text, "{}", if row.identical == Some(false) { "  differs" } else { "" })?;
            for line in row.diagnostics.lines().chain(row.error.iter().flat_map(|error| error.lines())) {
                writeln!(text, "    {}", printable(line))?;
            }
        }
        writeln!(text)?;
        if let Some(loss) = &self.loss {
            writeln!(text, "{}", loss.text())?;
        }
        match &self.lua {
            Some(Ok(said)) => writeln!(text, "the script printed: {}", printable(said))?,
            Some(Err(error)) => writeln!(text, "the script did not run: {}", printable(error))?,
            None => {}
        }
        for bar in self.bars.iter().filter(|bar| !bar.held) {
            writeln!(text, "NOT HELD: {}", bar.what)?;
        }
        writeln!(text, "{}", self.summary())?;
        Ok(text)
    }

    fn summary(&self) -> String {
        let done: Vec<&Row> = self.files.iter().filter(|row| row.error.is_none()).collect();
        let mut by_transport = String::new();
        let transports: BTreeSet<&str> = done.iter().filter_map(|row| row.transport.as_deref()).collect();
        for transport in transports {
            let count = done.iter().filter(|row| row.transport.as_deref() == Some(transport)).count();
            let _ = write!(by_transport, ", {transport} {count}");
        }
        let identical = match done.iter().filter(|row| row.identical == Some(true)).count() {
            0 => String::new(),
            count => format!(", {count} identical to a local compile"),
        };
        format!(
            "{}: {} of {} files compiled on workers{by_transport}; {} failed, {} retries{identical}; {:.1} s",
            if self.held { "all held" } else { "FAILED" },
            done.len(),
            self.files.len(),
            self.files.len() - done.len(),
            self.files.iter().map(|row| row.retries).sum::<u32>(),
            Duration::from_millis(self.milliseconds).as_secs_f64(),
        )
    }
}

impl Loss {
    fn new(fault: Fault, struck: Option<Struck>, pool: &Pool, fleet: &[Worker]) -> Self {
        let victim = struck.and_then(|struck| Some((struck.at, fleet.get(struck.victim)?)));
        let standing = victim.and_then(|(_, worker)| standing(pool, worker));
        let since = |then: Option<Instant>| {
            let (at, _) = victim?;
            Some(millis(then?.saturating_duration_since(at)))
        };
        Self {
            fault,
            worker: victim.map(|(_, worker)| worker.name.clone()),
            transport: victim.map(|(_, worker)| worker.transport.to_string()),
            noticed_ms: since(standing.and_then(|standing| standing.lost)),
            moved_jobs: standing.map_or(0, |standing| standing.moved_jobs),
            moved_ms: since(standing.and_then(|standing| standing.moved)),
        }
    }

    fn text(&self) -> String {
        let fault = if self.fault == Fault::Kill { "killed" } else { "frozen" };
        let (Some(worker), Some(transport)) = (&self.worker, &self.transport) else {
            return format!("no worker was {fault}: none had a job running after each had done one");
        };
        let after = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("after {ms} ms"));
        format!(
            "{worker} ({transport}) was {fault}; the mesh noticed {}, {} of its jobs ran elsewhere, the last {}",
            after(self.noticed_ms),
            self.moved_jobs,
            after(self.moved_ms)
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Without control characters: some of it was written by a worker.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_worker_reaches_the_terminal_unescaped() {
        let row = Row { diagnostics: "x.c:1: \u{1b}[2Jgone\r\n".into(), ..Row::default() };
        let report =
            Report { held: true, bars: Vec::new(), milliseconds: 0, loss: None, lua: None, files: vec![row] };
        let text = report.text().expect("text");
        assert!(text.contains("x.c:1:") && !text.contains(['\u{1b}', '\r']), "{text:?}");
    }
}
