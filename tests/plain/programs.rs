//! Other people's programs.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Whether `program` can be started; if not, a line says what is skipped.
pub(crate) fn there(program: &str, version: &str, test: &str) -> bool {
    let found =
        Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {test}: the program {program} is not installed");
    }
    found
}

/// Runs a command to its end, with `input` for it to read; at most 20 seconds.
pub(crate) async fn run(command: &mut tokio::process::Command, input: &[u8]) -> Output {
    use tokio::io::AsyncWriteExt;

    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that is done before it has read everything is no trouble.
    stdin.write_all(input).await.ok();
    drop(stdin);
    tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.expect("it hangs").unwrap()
}
