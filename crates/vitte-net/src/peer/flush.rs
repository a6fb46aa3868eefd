//! From the session to the links: whoever has something to say writes, one at a time for each link.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use vitte_net_proto::frame::Frame;
use vitte_net_proto::{Lane, LinkId, Violation};

use super::core::{Effects, Shared};
use crate::transport::{LinkError, LinkInfo, LinkWriter};

/// Bytes that are packed between two writes to the socket.
const WRITE_BATCH: usize = 256 << 10;
/// Writes of one flush, after which the driver goes on: others want the thread. 1 MiB is about a millisecond.
const WRITES_MAX: usize = 4;

/// A link of a session: its writer, and the means to end its reader.
#[derive(Debug)]
pub(super) struct LinkSlot {
    pub(super) id: LinkId,
    pub(super) info: LinkInfo,
    writer: Mutex<Writing>,
    /// Somebody found the writer taken: whoever has it goes round once more.
    again: AtomicBool,
    is_cut: AtomicBool,
    pub(super) cut: Notify,
}

#[derive(Debug)]
struct Writing {
    writer: LinkWriter,
    frames: Vec<u8>,
}

impl LinkSlot {
    pub(super) fn new(id: LinkId, info: LinkInfo, writer: LinkWriter) -> Self {
        Self {
            id,
            info,
            writer: Mutex::new(Writing { writer, frames: Vec::new() }),
            again: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
        }
    }

    /// Ends the link here and now.
    pub(super) fn cut(&self) {
        if !self.is_cut.swap(true, Ordering::SeqCst) {
            self.writer.lock().unwrap_or_else(PoisonError::into_inner).writer.close();
            self.cut.notify_one();
        }
    }

    /// Tells the peer why its link ends, as far as that goes without waiting, and ends it.
    pub(super) fn refuse(&self, violation: &Violation, cx: &mut Context<'_>) {
        let mut writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { writer, frames } = &mut *writing;
        frames.clear();
        Frame::Close { code: violation.code, session: false, reason: violation.reason }.put(frames);
        let _ = writer.write(Lane::CONTROL, frames);
        let _ = writer.poll_flush(cx);
        drop(writing);
        self.cut();
    }
}

impl Shared {
    /// Writes what the session has to say to its links, as far as they take it without waiting. What they
    /// do not take is written by the driver when they do. True: they would take more, and others want the thread.
    pub(super) fn flush(&self) -> bool {
        let links: Vec<Arc<LinkSlot>> = {
            let mut core = self.core();
            core.pending = 0;
            core.links.values().cloned().collect()
        };
        let mut more = false;
        for slot in links {
            more |= self.flush_link(&slot);
        }
        self.core().rearm(&self.driver);
        if more {
            self.driver.notify_one();
        }
        more
    }

    fn flush_link(&self, slot: &Arc<LinkSlot>) -> bool {
        loop {
            slot.again.store(true, Ordering::SeqCst);
            let Ok(mut writing) = slot.writer.try_lock() else { return false };
            slot.again.store(false, Ordering::SeqCst);
            let mut effects = Effects::default();
            let result = self.write_all(slot, &mut writing, &mut effects);
            drop(writing);
            self.carry_out(effects);
            let more = match result {
                Ok(more) => more,
                Err(error) => {
                    self.link_failed(slot, &error);
                    return false;
                }
            };
            if more || !slot.again.load(Ordering::SeqCst) {
                return more;
            }
        }
    }

    /// True: there is more to write, and the link would take it.
    fn write_all(
        &self,
        slot: &LinkSlot,
        writing: &mut Writing,
        effects: &mut Effects,
    ) -> Result<bool, LinkError> {
        let Writing { writer, frames } = writing;
        let mut cx = Context::from_waker(&self.driver_waker);
        for _ in 0..WRITES_MAX {
            let mut packed = 0;
            while packed < WRITE_BATCH {
                frames.clear();
                let now = self.moment();
                let lane = {
                    let mut core = self.core();
                    let lane =
                        core.session.poll_transmit(slot.id, &mut |lane| writer.capacity(lane), frames, now);
                    core.digest(effects);
                    lane
                };
                let Some(lane) = lane else { break };
                writer.write(lane, frames)?;
                packed += frames.len();
            }
            let flushed = writer.poll_flush(&mut cx);
            match flushed {
                Poll::Ready(Ok(())) if packed == 0 => return Ok(false),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(error),
                // A lane that is not blocked may have room: go on while something moves.
                Poll::Pending if packed == 0 => return Ok(false),
                Poll::Pending => {}
            }
        }
        Ok(true)
    }

    /// A link broke: the session goes on over another, or waits for one.
    pub(super) fn link_failed(&self, slot: &Arc<LinkSlot>, error: &LinkError) {
        let (peer, transport) = (self.id(), slot.info.transport);
        match error {
            // No CLOSE frame tells of it: what the layer below said is all there is.
            LinkError::Protocol { .. } => {
                tracing::warn!(peer = %peer.short(), %transport, %error, "a link is broken")
            }
            _ => tracing::debug!(peer = %peer.short(), %transport, %error, "a link ended"),
        }
        self.with(|core, now| {
            core.links.remove(&slot.id);
            core.session.link_down(slot.id, now);
        });
        slot.cut();
        self.driver.notify_one();
    }
}
