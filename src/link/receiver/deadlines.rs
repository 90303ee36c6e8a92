//! The deadlines for silence and for an unfinished message, and how reading ends.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::{READS_PER_POLL, Receiver, State};
use crate::{Error, Result, codec::Decode, error::Deadline};

/// Dropped messages after which one poll lets other tasks run.
const MESSAGES_PER_POLL: u32 = 1024;

/// Bytes dropped with one read after a breach of the framing.
const LINGER_READ: usize = 4096;

impl<D: Decode, R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static> Receiver<D, R, W> {
    /// Waits for the earlier of the two deadlines, if any is set.
    #[inline]
    pub(super) fn poll_timers(&mut self, cx: &mut Context<'_>, listening: bool) -> Poll<Result<()>> {
        if self.timers.is_none() { Poll::Pending } else { self.poll_deadlines(cx, listening) }
    }

    /// Not `listening`, nobody can tell whether the peer is silent.
    pub(super) fn poll_deadlines(&mut self, cx: &mut Context<'_>, listening: bool) -> Poll<Result<()>> {
        let waiting = self.window.as_ref().is_some_and(|window| !window.is_empty());
        let unfinished = waiting || self.decoder.is_mid_message();
        let settings = &self.outbox.settings;
        let Some(timers) = self.timers.as_deref_mut() else { return Poll::Pending };
        let mut now = None;
        let mut now = || *now.get_or_insert_with(Instant::now);
        let limit = if unfinished {
            settings.frame.map(|after| (Deadline::Frame, after, &mut timers.frame_since))
        } else {
            timers.frame_since = None;
            settings.idle.map(|after| (Deadline::Idle, after, &mut timers.idle_since))
        };
        // What ends beyond all clocks never does.
        let limit = limit.and_then(|(deadline, after, since)| {
            let at = since.get_or_insert_with(&mut now).checked_add(after)?;
            Some((deadline, after, at))
        });
        // Outside a runtime there is no clock to ping by.
        let clock = timers.sleep.is_some() || tokio::runtime::Handle::try_current().is_ok();
        let silence = timers.silence.filter(|_| clock && listening);
        if !listening {
            timers.silent_since = None;
        }
        let silence =
            silence.and_then(|after| timers.silent_since.get_or_insert_with(&mut now).checked_add(after));
        let Some(until) = limit.map(|(.., until)| until).into_iter().chain(silence).min() else {
            return Poll::Pending;
        };
        let sleep = timers.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        timers.sleep = None;
        match limit {
            Some((deadline, after, at)) if at == until => {
                timers.idle_since = None;
                timers.frame_since = None;
                Poll::Ready(Err(Error::TimedOut { deadline, after }))
            }
            _ => {
                timers.silent_since = None;
                let handled = self.decoder.handle_idle();
                Poll::Ready(match handled {
                    Ok(()) => {
                        if let Some(ping) = self.decoder.poll_reply() {
                            self.outbox.remark(ping);
                        }
                        Ok(())
                    }
                    Err(violation) => Err(self.violation(violation)),
                })
            }
        }
    }

    /// Receives and drops messages until the stream is over: what a peer sends after this side has taken leave.
    pub(in super::super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut messages = 0;
        loop {
            match ready!(self.poll_found(cx)) {
                Ok(found) => {
                    self.lend(found);
                    messages += 1;
                }
                Err(error) if error.is_fatal() => return Poll::Ready(()),
                Err(_) => messages += 1,
            }
            if messages == MESSAGES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// After a breach of the framing: reads and drops bytes until the peer has ended the stream too. A socket that is
    /// closed with unread bytes is reset, and the last word on its way to the peer is lost with it.
    pub(in super::super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.state, State::Broken(_)) {
            return Poll::Ready(());
        }
        let mut bytes = [0; LINGER_READ];
        for _ in 0..READS_PER_POLL {
            let mut target = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.reader).poll_read(cx, &mut target)) {
                Ok(()) if !target.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
