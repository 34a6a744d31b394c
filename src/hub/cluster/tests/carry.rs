//! Requests that come to another node than their session's.

use bytes::Bytes;

use super::*;
use crate::hub::{Asked, Errand, Wish};
use crate::protocol::Ticket;

/// What would have a body's lines carried out at the seat's node.
pub(super) fn errand(ticket: &Value, body: &str) -> Errand {
    let ticket = Ticket::parse(ticket.as_str().expect("text")).expect("a ticket");
    let client = "192.0.2.1".parse().expect("an address");
    Errand::new(room(), ticket, client, Wish::Speak, &Bytes::from(body.to_owned()))
}

/// What a node is told that has another one answer; nothing if that is not to come about.
async fn carried(node: &Node, ask: &Errand, answering: impl Future<Output = ()>) -> Result<Option<String>, Refusal> {
    let both = async { tokio::join!(node.hub.carry(ask), answering).0 };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is asked and answered")
}

/// Answers one request at a node by `by`, with the request's body.
async fn answer_one(node: &Node, by: &str) {
    let asked: Asked = node.hub.next_errand().await;
    let body = asked.errand().body().expect("it is whole");
    asked.answer(Ok(format!("{by} {}", String::from_utf8_lossy(&body)))).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_finds_the_node_that_has_the_session() {
    let bus = Memory::default();
    let [x, y, z] = Node::three(&bus).await;
    let (a, joined) = x.join(Rights::MEMBER).await;
    let ask = errand(&joined["ticket"], "ä");
    // At a node that has never heard of the room, which the ticket tells; and from one that has it, which the roster tells.
    let answer = carried(&y, &ask, answer_one(&x, "x")).await;
    assert_eq!(answer, Ok(Some("x ä".to_owned())));
    assert_eq!(y.hub.room_count(), 0, "it is not opened for that");
    assert_eq!(x.hub.carry(&ask).await, Ok(None), "the session is here");
    // It has moved on: who wrote the ticket knows where to.
    let resume = crate::protocol::Resume { ticket: ask.ticket(), seq: 0, token: None };
    y.hub.fetch(&room(), &resume, None).await.expect("it can be had");
    let (b, _) = y.hub.resume(&room(), &resume, None, Transport::EventStream).expect("the seat is there");
    assert!(a.next().await["with"].as_str().is_some_and(|with| with.contains("Replaced")));
    let answer = carried(&z, &ask, answer_one(&y, "y")).await;
    assert_eq!(answer, Ok(Some("y ä".to_owned())));
    // Who wrote it is gone: the roster knows.
    x.cluster.stop().await;
    until(|| z.cluster.is_lost(x.cluster.id())).await;
    let answer = carried(&z, &ask, answer_one(&y, "y")).await;
    assert_eq!(answer, Ok(Some("y ä".to_owned())));
    drop(b);
    tokio::time::sleep(2 * WINDOW).await;
    assert_eq!(z.hub.carry(&ask).await, Ok(None), "nobody has it any more");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_given_up_where_it_is_answered() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (_a, joined) = x.join(Rights::MEMBER).await;
    let ask = errand(&joined["ticket"], "");
    let asked = {
        let mut waiting = std::pin::pin!(y.hub.carry(&ask));
        tokio::select! {
            answer = &mut waiting => panic!("nobody answers: {answer:?}"),
            asked = x.hub.next_errand() => asked,
        }
    };
    asked.given_up().await;
    asked.answer(Ok("late".to_owned())).await;
    // The other node is lost while it answers, and while it is waited for.
    let (answer, asked) = tokio::join!(y.hub.carry(&ask), async {
        let asked = x.hub.next_errand().await;
        bus.cut(true);
        asked
    });
    assert_eq!(answer.expect_err("silence").code, Code::GoingAway);
    asked.given_up().await;
    bus.cut(false);
    linked(&[&x, &y]).await;
    let answer = carried(&y, &ask, answer_one(&x, "again")).await;
    assert_eq!(answer, Ok(Some("again ".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn so_much_is_under_way_and_no_more() {
    let bus = Memory::default();
    let [x, y] = Node::pair(&bus).await;
    let (_a, joined) = x.join(Rights::MEMBER).await;
    let large = errand(&joined["ticket"], &"x".repeat(LINK_BYTES));
    let refused = y.hub.carry(&large).await.expect_err("no link takes so much");
    assert_eq!(refused.code, Code::TooLarge);
    let (hub, _others) = (&y.hub, y.hub.carrying.leave_room(3_000_000));
    let asks: Vec<Errand> = (0..30).map(|_| errand(&joined["ticket"], &"x".repeat(100_000))).collect();
    let waiting = futures_util::future::join_all(asks.iter().map(|ask| hub.carry(ask)));
    let answering = async {
        loop {
            answer_one(&x, "done").await;
        }
    };
    let answers = tokio::select! { answers = waiting => answers, () = answering => unreachable!() };
    let done = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|refusal| refusal.code == Code::GoingAway && refusal.retry_after.is_some()));
    assert_eq!((done, refused.count()), (21, 9));
    assert_eq!(x.cluster.nodes().len(), 1, "the link is up");
    assert!(carried(&y, &asks[0], answer_one(&x, "done")).await.is_ok(), "there is room again");
}
