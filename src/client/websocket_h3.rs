//! A WebSocket over HTTP/3 (RFC 9220). h3's client cannot ask for one, so this speaks the little HTTP/3 that it takes: two
//! heads and DATA frames, on a connection of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::Trust;
use super::http::{BODY_BYTES, Endpoint, Error, opening_headers};
use super::websocket::{Carrier, WebSocket, gathered};
use super::webtransport::{PATIENCE, dial, http3};
use crate::transport::quic::varint;

const CONTROL_STREAM: u64 = 0x00;
const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const SETTINGS: u64 = 0x04;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(0x10c);

/// The most that a frame other than DATA may have.
const FRAME_BYTES: u64 = 64 * 1024;

/// Asks for a WebSocket by extended CONNECT, on a connection of its own; it takes what is said at once, and brings the server's answer
/// when it is there.
///
/// # Errors
/// Whatever kept it from being asked for.
pub(super) async fn begin(
    endpoint: &Endpoint,
    path: &str,
    trust: &Trust,
    headers: &HeaderMap,
) -> Result<WebSocket, Error> {
    let quic = dial(endpoint, trust).await?;
    let opening = async {
        let critical = exchange_settings(&quic).await?;
        let (mut send, recv) = quic.open_bi().await.map_err(http3)?;
        send.write_all(&request(&endpoint.authority(), path, headers)).await.map_err(http3)?;
        Ok(WebSocket::new(gathered(Tunnel::new(send, recv, critical))))
    };
    timeout(PATIENCE, opening).await.map_err(|_| http3("no answer in time"))?
}

/// Waits for the answer to the CONNECT, behind which the WebSocket's bytes come.
async fn accepted(mut recv: RecvStream) -> Result<RecvStream, Error> {
    let section = frame_of(&mut recv, HEADERS).await?;
    let status = status(&section).ok_or_else(|| http3("the answer has no status"))?;
    if status != StatusCode::OK {
        return Err(Error::Refused(Box::new(refusal(status, &mut recv).await?)));
    }
    Ok(recv)
}

/// Streams that must stay open as long as the connection (RFC 9114, 6.2.1): our control stream, and the server's.
type Critical = (SendStream, Vec<RecvStream>);

/// Sends our SETTINGS, of which there are none, and waits for the server's, before which nothing extended may be asked for.
async fn exchange_settings(quic: &quinn::Connection) -> Result<Critical, Error> {
    let mut control = quic.open_uni().await.map_err(http3)?;
    control.write_all(&[CONTROL_STREAM as u8, SETTINGS as u8, 0]).await.map_err(http3)?;
    let mut others = Vec::new();
    loop {
        let mut stream = quic.accept_uni().await.map_err(http3)?;
        if integer(&mut stream).await? == CONTROL_STREAM {
            let mut settings = &frame_of(&mut stream, SETTINGS).await?[..];
            let pairs = std::iter::from_fn(|| {
                let (id, id_bytes) = varint::get(settings)?;
                let (value, value_bytes) = varint::get(&settings[id_bytes..])?;
                settings.advance(id_bytes + value_bytes);
                Some((id, value))
            });
            let offered = pairs.into_iter().any(|pair| pair == (ENABLE_CONNECT_PROTOCOL, 1));
            others.push(stream);
            return if offered { Ok((control, others)) } else { Err(http3("the server takes no extended CONNECT")) };
        }
        others.push(stream);
    }
}

/// The HEADERS frame of the request: literals only (RFC 9204, 4.5.6), which need no table.
fn request(authority: &str, path: &str, headers: &HeaderMap) -> Vec<u8> {
    let headers = opening_headers(headers);
    let own = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let pseudo = [
        (":method", &b"CONNECT"[..]),
        (":protocol", b"websocket"),
        (":scheme", b"https"),
        (":authority", authority.as_bytes()),
        (":path", path.as_bytes()),
    ];
    let mut section = vec![0, 0];
    for (name, value) in pseudo.into_iter().chain(own) {
        put_text(&mut section, 0x20, 3, name.as_bytes());
        put_text(&mut section, 0x00, 7, value);
    }
    frame(HEADERS, &section)
}

/// A text behind its length, which begins in the last `bits` of a byte (RFC 7541, 5.1 and 5.2).
fn put_text(section: &mut Vec<u8>, flags: u8, bits: u32, text: &[u8]) {
    let most = (1usize << bits) - 1;
    section.push(flags | text.len().min(most) as u8);
    if let Some(mut rest) = text.len().checked_sub(most) {
        while rest >= 0x80 {
            section.push(0x80 | rest as u8);
            rest >>= 7;
        }
        section.push(rest as u8);
    }
    section.extend_from_slice(text);
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 * varint::MAX_BYTES + payload.len());
    varint::put(&mut frame, kind);
    varint::put(&mut frame, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// The next frame's payload, which must be of that kind; unknown ones before it are skipped.
async fn frame_of(recv: &mut RecvStream, kind: u64) -> Result<Vec<u8>, Error> {
    loop {
        let found = integer(recv).await?;
        let length = integer(recv).await?;
        if length > FRAME_BYTES {
            return Err(http3("a frame is too long"));
        }
        let mut payload = vec![0; length as usize];
        recv.read_exact(&mut payload).await.map_err(http3)?;
        match found {
            _ if found == kind => return Ok(payload),
            DATA | HEADERS | SETTINGS => return Err(http3("a frame in the wrong place")),
            _ => {}
        }
    }
}

async fn integer(recv: &mut RecvStream) -> Result<u64, Error> {
    let mut bytes = [0; varint::MAX_BYTES];
    recv.read_exact(&mut bytes[..1]).await.map_err(http3)?;
    let length = 1 << (bytes[0] >> 6);
    recv.read_exact(&mut bytes[1..length]).await.map_err(http3)?;
    varint::get(&bytes).map(|(value, _)| value).ok_or_else(|| http3("not an integer"))
}

/// The `:status` at the head of a field section: a line of the static table (RFC 9204, appendix A), or its name from there and
/// three digits.
fn status(section: &[u8]) -> Option<StatusCode> {
    let number = match section.get(2..)? {
        [line @ 0xd8..=0xdc, ..] => [103, 200, 304, 404, 503][usize::from(line - 0xd8)],
        [0xff, line @ 0..=8, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500][usize::from(*line)],
        [0x5f, 9, 3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()?,
        [0x5f, 9, length @ 0x80..=0xff, code @ ..] => digits(code.get(..usize::from(length & 0x7f))?)?,
        _ => return None,
    };
    StatusCode::from_u16(number).ok()
}

/// Three digits in Huffman's code (RFC 7541, appendix B): those below 3 in five bits, the others in six.
fn digits(code: &[u8]) -> Option<u16> {
    let [first, second, third @ ..] = code else { return None };
    let mut bits = u32::from_be_bytes([*first, *second, third.first().copied().unwrap_or(0xff), 0xff]);
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 27 {
            digit @ 0..3 => (digit, 5),
            _ => ((bits >> 26).checked_sub(0x19)? + 3, 6),
        };
        number = 10 * number + u16::try_from(digit).ok().filter(|digit| *digit < 10)?;
        bits <<= length;
    }
    Some(number)
}

async fn refusal(status: StatusCode, recv: &mut RecvStream) -> Result<Response<Bytes>, Error> {
    let rest = recv.read_to_end(BODY_BYTES).await.map_err(|error| Error::Body(Box::new(error)))?;
    let mut rest = Bytes::from(rest);
    let mut body = BytesMut::new();
    while let Some((kind, taken)) = varint::get(&rest) {
        let Some((length, more)) = varint::get(&rest[taken..]) else { break };
        rest.advance(taken + more);
        let payload = rest.split_to(rest.len().min(length as usize));
        if kind == DATA {
            body.extend_from_slice(&payload);
        }
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = status;
    Ok(response)
}

/// The DATA frames of the CONNECT, both ways. Resets the stream when it is dropped before it has been shut down.
struct Tunnel {
    send: SendStream,
    /// `None` until the server has accepted it.
    recv: Option<RecvStream>,
    /// Until it is there.
    answer: Option<BoxFuture<'static, Result<RecvStream, Error>>>,
    /// What has come of the next frame's header.
    header: BytesMut,
    /// Bytes to come of the frame that is being read, and whether it is DATA.
    left: (u64, bool),
    /// Frames that QUIC has not taken yet.
    out: BytesMut,
    ended: bool,
    _critical: Critical,
}

impl Tunnel {
    fn new(send: SendStream, recv: RecvStream, critical: Critical) -> Self {
        let (header, out) = (BytesMut::new(), BytesMut::new());
        let answer =
            timeout(PATIENCE, accepted(recv)).map(|in_time| in_time.map_err(|_| http3("no answer in time"))?);
        let (recv, answer) = (None, Some(answer.boxed()));
        Tunnel { send, recv, answer, header, left: (0, false), out, ended: false, _critical: critical }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_opened(cx)).map_err(io::Error::other)?;
        let before = buffer.filled().len();
        let Some(recv) = &mut self.recv else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        ready!(AsyncRead::poll_read(Pin::new(recv), cx, buffer))?;
        Poll::Ready(Ok(buffer.filled().len() - before))
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(AsyncWrite::poll_write(Pin::new(&mut self.send), cx, &self.out))?;
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl Carrier for Tunnel {
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(answer) = &mut self.answer {
            let answer = ready!(answer.as_mut().poll(cx));
            self.answer = None;
            self.recv = Some(answer?);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let (left, is_data) = self.left;
            if left == 0 {
                let mut byte = [0];
                if ready!(self.poll_raw(cx, &mut ReadBuf::new(&mut byte)))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.header.extend_from_slice(&byte);
                let Some((kind, taken)) = varint::get(&self.header) else { continue };
                let Some((length, _)) = varint::get(&self.header[taken..]) else { continue };
                self.left = (length, kind == DATA);
                self.header.clear();
                continue;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            if !is_data {
                let mut scrap = [0; 256];
                let read = ready!(self.poll_raw(cx, &mut ReadBuf::new(&mut scrap[..most.min(256)])))?;
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.left.0 -= read as u64;
                continue;
            }
            let most = most.min(buffer.remaining());
            let read = ready!(self.poll_raw(cx, &mut ReadBuf::new(buffer.initialize_unfilled_to(most))))?;
            buffer.advance(read);
            self.left.0 -= read as u64;
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        self.out.extend_from_slice(&frame(DATA, bytes));
        // Whatever QUIC does not take at once goes out with the next call.
        if let Poll::Ready(sent) = self.poll_out(cx) {
            sent?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // quinn would end the stream as if the WebSocket had been closed.
        if !self.ended {
            // Fails only where it is too late, which is as well.
            let _ = self.send.reset(REQUEST_CANCELLED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_status_is_read() {
        for (line, expected) in [
            (&[0xd9][..], 200),
            (&[0xdc], 503),
            (&[0xff, 4], 400),
            (&[0xff, 8], 500),
            (b"\x5f\x09\x03401", 401),
            // As RFC 7541, C.6.1 has it.
            (&[0x5f, 9, 0x82, 0x64, 0x02], 302),
            (&[0x5f, 9, 0x83, 0x68, 0x0f, 0xff], 409),
        ] {
            let section = [&[0, 0], line].concat();
            assert_eq!(status(&section).map(|status| status.as_u16()), Some(expected), "{line:x?}");
        }
        assert_eq!(status(&[0, 0, 0x51, 1, b'/']), None);
    }
}
