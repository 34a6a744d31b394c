//! Requests for sessions of another node: sent there, and those of others answered here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::admit;
use super::poll::{self, Poll};
use crate::clients::Client;
use crate::context::Context;
use crate::hub::{Asked, Errand, Wish};
use crate::protocol::{Command, Refusal, RoomName, Ticket, Token};
use crate::traces::Span;

/// Has the node that has the session carry out a body's lines. `None` if that is to be done here.
///
/// # Errors
/// The refusal of that node, and those of [`Hub::carry`](crate::hub::Hub::carry).
pub(super) async fn lines(
    room: &RoomName,
    ticket: Option<Ticket>,
    client: &Client,
    whole: &Bytes,
    context: &Context,
) -> Result<Option<Bytes>, Refusal> {
    let Some(ticket) = ticket else { return Ok(None) };
    send(&Errand::new(room.clone(), ticket, client.address(), Wish::Speak, whole), client, context).await
}

/// Has the node that has the session answer a poll. `None` if that is to be done here.
///
/// # Errors
/// As for [`lines`].
pub(super) async fn poll(
    poll: &Poll,
    first: &Command<'_>,
    token: Option<Token<'_>>,
    whole: &Bytes,
    context: &Context,
) -> Result<Option<Bytes>, Refusal> {
    let Command::Resume(resume) = first else { return Ok(None) };
    let Some(ticket) = resume.ticket.filter(|_| context.hub.is_poll_carried(&poll.room, resume.ticket)) else {
        return Ok(None);
    };
    let token = token.map(|token| token.as_str().to_owned());
    let wish = Wish::Poll { wait_ms: poll.wait.as_millis() as u64, token };
    send(&Errand::new(poll.room.clone(), ticket, poll.client.address(), wish, whole), &poll.client, context).await
}

async fn send(errand: &Errand, client: &Client, context: &Context) -> Result<Option<Bytes>, Refusal> {
    let carried = tokio::select! {
        carried = context.hub.carry(errand) => carried,
        () = context.stop.raised() => Err(context.going_away()),
    };
    admit::note_failure(client, carried).map(|answer| answer.map(Bytes::from))
}

/// Answers what comes from other nodes. Runs until it is dropped.
pub async fn serve(context: Arc<Context>) {
    loop {
        let asked = context.hub.next_errand().await;
        context.tasks.spawn(answer(asked, Arc::clone(&context)));
    }
}

async fn answer(asked: Asked, context: Arc<Context>) {
    let result = tokio::select! {
        result = Box::pin(carry_out(asked.errand(), &context)) => result,
        // As for a client that has gone away.
        () = asked.given_up() => return,
    };
    asked.answer(result).await;
}

/// Does what is asked for as if it had come here: this node alone knows the seat, its ticket and its token.
async fn carry_out(errand: &Errand, context: &Context) -> Result<String, Refusal> {
    let (room, client) = (&errand.room, context.clients.client(errand.client));
    admit::hold_back(admit::may_try(&client, context)).await?;
    let body = errand.body()?;
    match &errand.wish {
        Wish::Speak => {
            let speaker = admit::note_failure(&client, context.hub.speaker(room, errand.ticket()))?;
            poll::speak(speaker, &body, &client, &Span::NONE, context).await?;
            Ok(String::new())
        }
        Wish::Poll { wait_ms, token } => {
            let begun = Instant::now();
            let token = token.as_deref().map(Token::new);
            let grant = admit::head_grant(token, room, &client, context).await?;
            let wait = Duration::from_millis(*wait_ms);
            let answer = poll::poll_by(
                &Poll { room: room.clone(), client, grant, begun, wait, trace: Span::NONE },
                &body,
                context,
            )
            .await?;
            Ok(String::from_utf8(answer.into()).expect("messages are text"))
        }
    }
}
