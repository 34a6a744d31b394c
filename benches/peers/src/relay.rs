//! The least that a relay can be: whoever connects names a room in its first line; every further line goes to all others in the room as it
//! is. Nothing is parsed, checked, numbered, acknowledged or kept.
//!
//! One task a connection, one buffer for what goes out: what has come is handed on as one piece, and what is to go is written at once.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read at once: a TLS record.
const READ_BYTES: usize = 16 * 1024;
/// A first line is not longer.
const ROOM_BYTES: usize = 256;
/// Whoever lets more wait is disconnected.
const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// All rooms.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<HashMap<Vec<u8>, Arc<Room>>>);

/// Who is in a room.
#[derive(Debug, Default)]
struct Room(Mutex<Vec<Arc<Outbox>>>);

/// What waits for one connection.
#[derive(Debug, Default)]
struct Outbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    task: Option<Waker>,
}

impl Outbox {
    fn push(&self, bytes: &[u8]) {
        let mut waiting = self.0.lock();
        waiting.bytes.extend_from_slice(bytes);
        if let Some(task) = waiting.task.take() {
            drop(waiting);
            task.wake();
        }
    }

    /// Moves what waits into `bytes`, which is empty; if nothing does, the task will be woken.
    fn poll_take(&self, bytes: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.0.lock();
        if waiting.bytes.is_empty() {
            waiting.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(bytes, &mut waiting.bytes);
        Poll::Ready(())
    }
}

impl Rooms {
    fn enter(&self, name: &[u8], outbox: &Arc<Outbox>) -> Arc<Room> {
        let room = Arc::clone(self.0.lock().entry(name.to_vec()).or_default());
        room.0.lock().push(Arc::clone(outbox));
        room
    }

    fn leave(&self, name: &[u8], room: &Room, outbox: &Arc<Outbox>) {
        let mut rooms = self.0.lock();
        let mut members = room.0.lock();
        members.retain(|member| !Arc::ptr_eq(member, outbox));
        if members.is_empty() {
            rooms.remove(name);
        }
    }

    /// Serves one connection until its client ends it.
    ///
    /// # Errors
    /// If it is lost, or says too much.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<()> {
        let mut held = Vec::new();
        let name = poll_fn(|cx| poll_first_line(&mut stream, &mut held, cx)).await?;
        let outbox = Arc::new(Outbox::default());
        let room = self.enter(&name, &outbox);
        // The client knows that it is in.
        outbox.push(b"\n");
        let mut member = Member { stream, room, outbox, held, writing: Vec::new(), written: 0 };
        let ended = poll_fn(|cx| member.poll_serve(cx)).await;
        self.leave(&name, &member.room, &member.outbox);
        ended?;
        poll_fn(|cx| Pin::new(&mut member.stream).poll_shutdown(cx)).await
    }
}

/// The line without its end; what came after it stays in `held`.
fn poll_first_line<S: AsyncRead + Unpin>(
    stream: &mut S,
    held: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Vec<u8>>> {
    loop {
        if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let rest = held.split_off(end + 1);
            let mut line = std::mem::replace(held, rest);
            line.pop();
            return Poll::Ready(Ok(line));
        }
        if held.len() > ROOM_BYTES {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let came = ready!(poll_read(stream, cx, |bytes| held.extend_from_slice(bytes)))?;
        if came == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads what is there into a buffer of this call, so that no connection has to keep one.
fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    came: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    came(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

struct Member<S> {
    stream: S,
    room: Arc<Room>,
    outbox: Arc<Outbox>,
    /// The beginning of a line.
    held: Vec<u8>,
    writing: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Member<S> {
    /// Ready when the client has said its last.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            let Self { stream, room, outbox, held, .. } = self;
            let came = ready!(poll_read(stream, cx, |bytes| hand_on(room, outbox, held, bytes)))?;
            if came == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes all that waits; pending when nothing does any more, or the connection takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                if self.outbox.poll_take(&mut self.writing, cx).is_pending() {
                    return Pin::new(&mut self.stream).poll_flush(cx);
                }
                if self.writing.len() > WAITING_BYTES {
                    return Poll::Ready(Err(io::Error::other("the client does not read")));
                }
            }
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing[self.written..]))?;
        }
    }
}

/// Gives the whole lines of `bytes` to all others; the beginning of another one waits in `held` for its end.
fn hand_on(room: &Room, own: &Arc<Outbox>, held: &mut Vec<u8>, bytes: &[u8]) {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (lines, rest) = bytes.split_at(whole);
    if whole > 0 {
        for member in room.0.lock().iter().filter(|member| !Arc::ptr_eq(member, own)) {
            if held.is_empty() {
                member.push(lines);
            } else {
                member.push(&[held.as_slice(), lines].concat());
            }
        }
        held.clear();
    }
    held.extend_from_slice(rest);
}
