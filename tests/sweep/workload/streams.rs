//! Byte streams: read to their end, slowly, or left in the middle.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;
use vitte_net::{OpenError, PeerStream, StreamCode};

use super::Job;
use crate::node::{Outside, Site};

const BYTES: &str = "bytes";

pub(super) fn serve(site: &Site, services: &mut JoinSet<()>) {
    let mut incoming = site.mesh.accept_bytes(BYTES).expect("the name is free");
    let outside = site.clone().without_mesh();
    let mut dice = site.dice("byte streams");
    services.spawn(async move {
        let mut readers = JoinSet::new();
        while let Some((_, stream)) = incoming.next().await {
            let leaves = dice.one_in(6).then(|| dice.within(0, 100_000));
            let wait = dice.one_in(3).then(|| dice.millis(1, 50));
            if wait.is_some() {
                outside.run.note("slow readers of byte streams");
            }
            readers.spawn(read(outside.again(), stream, leaves, wait));
            while readers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        readers.join_all().await;
    });
}

async fn read(site: Outside, mut stream: PeerStream, leaves: Option<u64>, wait: Option<Duration>) {
    let mut reader = site.run.ledger.reader(site.name);
    let mut buf = vec![0; 16 << 10];
    let mut all = 0;
    loop {
        if let Some(wait) = wait.filter(|_| !site.healed()) {
            sleep(wait).await;
        }
        if leaves.is_some_and(|after| all >= after) {
            return stream.abort(StreamCode(302), "enough");
        }
        match stream.read(&mut buf).await {
            Ok(0) => return reader.ended(),
            Ok(count) => {
                reader.saw(&buf[..count]);
                all += count as u64;
            }
            Err(_) => return,
        }
    }
}

pub(super) async fn one(job: &mut Job) {
    job.note("byte streams");
    let opening = job.peer.byte_stream(BYTES).priority(job.priority()).open();
    let mut stream = match job.in_time("opening bytes", opening).await {
        Some(Ok(stream)) => stream,
        Some(Err(error @ (OpenError::NoSuchName | OpenError::SchemaMismatch { .. }))) => {
            return job.site.run.ledger.accuse(job.label(&format!("bytes: {error}")));
        }
        _ => return,
    };
    let mut flow = job.site.run.ledger.bytes(job.label("bytes"), job.to);
    let (mut left, gives_up) = (job.dice.within(0, 150_000), job.dice.one_in(6));
    while left > 0 && !job.site.healed() {
        let len = job.dice.within(1, 30_000).min(left);
        left -= len;
        let part = flow.next(usize::try_from(len).expect("a length"));
        flow.wrote(part.len());
        match job.in_time("write", stream.write_all(&part)).await {
            Some(Ok(())) => {}
            _ => return,
        }
        sleep(job.dice.millis(0, 20)).await;
    }
    if gives_up {
        return stream.abort(StreamCode(303), "changed its mind");
    }
    if let Some(Ok(())) = job.in_time("shutdown", stream.shutdown()).await {
        flow.finished();
    }
}
