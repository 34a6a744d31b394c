//! quinn's streams as h3 wants to see them.
//!
//! A receiving half can be asked for its id or stopped at any time, also while a read is pending; a sending half that is
//! dropped before it was finished is reset, so that half an answer is never taken for a whole one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;
use tokio::task::coop;

use super::demux::Stopped;
use super::frames::{Excess, Frames};

/// A QUIC application error code (RFC 9000, 20.2).
pub(crate) fn code(code: Code) -> VarInt {
    VarInt::try_from(code.value()).unwrap_or(VarInt::MAX)
}

pub(super) fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(std::sync::Arc::new(error)),
    }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("QUIC's stream ids are HTTP/3's")
}

/// Waits for the next bytes of `stream`; quinn's future holds nothing, and may be made anew for each poll.
pub(crate) fn poll_chunk(
    stream: &mut quinn::RecvStream,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, quinn::ReadError>> {
    let chunk = ready!(pin!(stream.read_chunk(most, true)).poll(cx))?;
    Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
}

/// The receiving half of a stream.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    /// Read already, and not yet handed on.
    head: Bytes,
    /// Handed on as it is, before any frame: the type of a unidirectional stream.
    preface: Bytes,
    frames: Option<Frames>,
}

impl RecvStream {
    /// A stream of which `head` has been read; what is behind `preface` are `frames`, if given, else whatever.
    pub(super) fn new(stream: quinn::RecvStream, preface: Bytes, head: Bytes, frames: Option<Frames>) -> Self {
        RecvStream { stream, head, preface, frames }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, quinn::ReadError>> {
        if !self.head.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.head))));
        }
        // A client that sends what is only dropped shall not keep the others waiting.
        let turn = ready!(coop::poll_proceed(cx));
        let chunk = ready!(poll_chunk(&mut self.stream, usize::MAX, cx));
        turn.made_progress();
        Poll::Ready(chunk)
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if !self.preface.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.preface))));
        }
        loop {
            let Some(mut chunk) = ready!(self.poll_raw(cx)).map_err(read_error)? else {
                return Poll::Ready(Ok(self.frames.as_mut().and_then(Frames::take_begun)));
            };
            let Some(frames) = &mut self.frames else {
                return Poll::Ready(Ok(Some(chunk)));
            };
            let piece = frames.next(&mut chunk);
            self.head = chunk;
            match piece {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(Excess) => {
                    self.stop_sending(Code::H3_EXCESSIVE_LOAD.value());
                    let error_code = Code::H3_EXCESSIVE_LOAD.value();
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
                }
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        // Fails only where it is too late, which is as well.
        let _ = self.stream.stop(VarInt::try_from(error_code).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        // Whoever did not read to the end did not need it (RFC 9114, 4.1); quinn would say 0, which means nothing.
        let _ = self.stream.stop(code(Code::H3_NO_ERROR));
    }
}

/// The sending half of a stream.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    writing: Option<Writing>,
    /// What is sent in place of the first thing that h3 sends.
    instead: Option<Bytes>,
    /// What others want its priority to be, and what it is.
    priority: Arc<AtomicI32>,
    prioritized: i32,
    finished: bool,
}

enum Writing {
    FromH3(WriteBuf<Bytes>),
    Ours(Bytes),
}

impl Writing {
    fn chunk(&self) -> &[u8] {
        match self {
            Writing::FromH3(buffer) => buffer.chunk(),
            Writing::Ours(bytes) => bytes,
        }
    }

    fn advance(&mut self, written: usize) {
        match self {
            Writing::FromH3(buffer) => buffer.advance(written),
            Writing::Ours(bytes) => bytes.advance(written),
        }
    }
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream) -> Self {
        SendStream { stream, writing: None, instead: None, priority: Arc::default(), prioritized: 0, finished: false }
    }

    /// A control stream whose type and SETTINGS are `head`, not those that h3 would send.
    pub(super) fn control(stream: quinn::SendStream, head: Bytes) -> Self {
        let mut control = SendStream::new(stream);
        control.instead = Some(head);
        control
    }

    /// Where to set how much more urgent than 0 what is sent from now on is.
    pub(super) fn priority(&self) -> Arc<AtomicI32> {
        Arc::clone(&self.priority)
    }

    /// The stream's id, and a future of the moment when the other end has all of it or wants no more.
    pub(super) fn stopped(&self) -> (u64, Stopped) {
        let stopped = self.stream.stopped();
        let stopped = Box::pin(async move {
            // Acknowledged, stopped or lost: there is nothing more to do in any case.
            let _ = stopped.await;
        });
        (self.stream.id().into(), stopped)
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(writing) = &mut self.writing {
            let chunk = writing.chunk();
            if chunk.is_empty() {
                self.writing = None;
                break;
            }
            let written = ready!(pin!(self.stream.write(chunk)).poll(cx)).map_err(write_error)?;
            writing.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let connection_error = ConnectionErrorIncoming::InternalError("sent before the last was written".into());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        let priority = self.priority.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.prioritized, priority) != priority {
            // Fails only where nothing can be sent any more.
            let _ = self.stream.set_priority(priority);
        }
        self.writing = Some(match self.instead.take() {
            Some(instead) => Writing::Ours(instead),
            None => Writing::FromH3(data.into()),
        });
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.finished = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reset_code: u64) {
        // Fails only where it is too late, which is as well.
        let _ = self.stream.reset(VarInt::try_from(reset_code).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // quinn would finish it.
        if !self.finished {
            let _ = self.stream.reset(code(Code::H3_REQUEST_CANCELLED));
        }
    }
}

/// Both halves.
pub(crate) struct BidiStream {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}
