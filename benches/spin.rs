//! Processors that do not sleep.
//!
//! A processor that has nothing to do goes to sleep, and on a virtual machine waking it can take longer than
//! the request that wakes it. So while latency is measured, one process per processor spins at the
//! scheduling policy `SCHED_IDLE`, which runs only where nothing else wants to. `chrt` of util-linux starts them.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

/// Processes that keep the processors awake until this is dropped.
#[derive(Debug)]
pub(crate) struct Awake(Vec<Child>);

impl Awake {
    /// One for each processor; none, and a word on standard error, where that cannot be had.
    pub(crate) fn keep() -> Self {
        let mut awake = Self(Vec::new());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..processors {
            match start() {
                Ok(child) => awake.0.push(child),
                Err(error) => {
                    eprintln!("vitte-net-bench: processors may sleep, chrt does not run: {error}");
                    break;
                }
            }
        }
        awake
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start() -> std::io::Result<Child> {
    let program = std::env::current_exe()?;
    Command::new("chrt")
        .args(["--idle", "0"])
        .arg(program)
        .arg("spin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
}

/// Spins until standard input ends, so that it never outlives who started it.
pub(crate) fn spin() -> ! {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}
