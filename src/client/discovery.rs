//! What a server offers, asked anew at each connect: addresses and certificate hashes change. And which of it to try first.

use std::collections::HashSet;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use serde::Deserialize;

use super::{Endpoint, Error, Http1, Trust, Via};
use crate::protocol::{PROTOCOL, ROOMS_PATH};

/// One way to a room, as the server offers it.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub via: Via,
    pub endpoint: Endpoint,
    /// SHA-256 of the certificates that QUIC may show; none where authorities vouch for them.
    pub hashes: Vec<[u8; 32]>,
}

#[derive(Deserialize)]
struct Document {
    protocol: String,
    transports: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    r#type: String,
    url: String,
    #[serde(default)]
    certificate_hashes: Vec<Hash>,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

/// Asks the server; the answer is its best first.
///
/// # Errors
/// Whatever kept it from answering, or an answer that is none.
pub(super) async fn discover(server: &Endpoint, trust: &Trust) -> Result<Vec<Offer>, Error> {
    let mut connection = Http1::connect(server, &trust.tls).await?;
    let answer = connection.request(Method::GET, "/v1/discovery", &HeaderMap::new()).await?;
    if answer.status() != StatusCode::OK {
        return Err(Error::Refused(Box::new(answer)));
    }
    read(answer.body()).map_err(Error::Url)
}

fn read(document: &[u8]) -> Result<Vec<Offer>, String> {
    let document: Document =
        serde_json::from_slice(document).map_err(|error| format!("the answer to the discovery is none: {error}"))?;
    if document.protocol != PROTOCOL {
        return Err(format!("the server speaks {}, this client {PROTOCOL}", document.protocol));
    }
    Ok(document.transports.into_iter().flat_map(offers).collect())
}

fn offers(entry: Entry) -> Vec<Offer> {
    let url = entry.url.split(ROOMS_PATH).next().and_then(|url| url.parse::<Uri>().ok());
    let Some(endpoint) = url.and_then(|url| Endpoint::of(&url).ok()) else { return Vec::new() };
    let hashes = entry.certificate_hashes.into_iter().filter(|hash| hash.algorithm == "sha-256");
    let hashes: Vec<[u8; 32]> = hashes
        .filter_map(|hash| base64::engine::general_purpose::STANDARD.decode(hash.value).ok()?.try_into().ok())
        .collect();
    let vias: &[Via] = match entry.r#type.as_str() {
        // Whatever else goes over HTTP/3 is where WebTransport is.
        "webtransport" => &[Via::WebTransport, Via::WebSocketH3, Via::EventStreamH3, Via::LongPollH3],
        "websocket" if endpoint.encrypted => &[Via::WebSocketH2, Via::WebSocketH1],
        "websocket" => &[Via::WebSocketH1],
        "event-stream" if endpoint.encrypted => &[Via::EventStreamH2, Via::EventStreamH1],
        "event-stream" => &[Via::EventStreamH1],
        "long-poll" if endpoint.encrypted => &[Via::LongPollH2, Via::LongPollH1],
        "long-poll" => &[Via::LongPollH1],
        _ => &[],
    };
    vias.iter().map(|&via| Offer { via, endpoint: endpoint.clone(), hashes: hashes.clone() }).collect()
}

/// An offer with its place in the race.
#[derive(Debug, Clone)]
pub(super) struct Rung {
    pub offer: Offer,
    /// How long the one before has before this one starts.
    pub wait: Duration,
    /// It tries again what is tried already, and only beside it.
    pub repeats: bool,
}

/// Where there is one transport only, it is tried again beside itself after this time: a lost packet costs TCP a second, a second
/// one two more, and a connection needs several to get through.
const AGAIN: Duration = Duration::from_millis(2500);
const REPEATS: usize = 2;

/// Which transports to try, in which order.
#[derive(Debug, Default)]
pub(super) struct Preference<'a> {
    /// The application's own order; what is not in it is not tried. Empty: the server's order, with WebTransport as the only way over
    /// HTTP/3, since another would get through where it does, and with polling over HTTP/1.1, the last resort where nothing else does.
    pub order: &'a [Via],
    /// What won here before: goes first.
    pub winner: Option<Via>,
    /// What died young here: goes last.
    pub demoted: HashSet<Via>,
}

const USUAL: [Via; 5] = [Via::WebTransport, Via::WebSocketH2, Via::WebSocketH1, Via::EventStreamH1, Via::LongPollH1];

/// Puts offers in the order in which they are tried; a transport's head start is as long as it may need to show that it works.
pub(super) fn ladder(offers: &[Offer], preference: &Preference<'_>, head_start: Duration) -> Vec<Rung> {
    let Preference { order, winner, demoted } = preference;
    let is_wanted = |via: Via| if order.is_empty() { USUAL.contains(&via) } else { order.contains(&via) };
    let mut usable: Vec<&Offer> = offers.iter().filter(|offer| is_wanted(offer.via)).collect();
    // The server's order stands among equals: sorting is stable.
    usable.sort_by_key(|offer| {
        let place = order.iter().position(|via| *via == offer.via).unwrap_or(0);
        (demoted.contains(&offer.via), *winner != Some(offer.via), place)
    });
    // The last resorts open at once, so their own long head start also holds before them: or they would win wherever a round
    // trip is long.
    let own = |via: Via| match via {
        via if via.is_event_stream() => head_start * 6,
        via if via.is_long_poll() => head_start * 12,
        _ => head_start,
    };
    let before = |place: usize, via: Via| match place.checked_sub(1).map(|previous| own(usable[previous].via)) {
        None => Duration::ZERO,
        Some(previous) if via.is_event_stream() || via.is_long_poll() => previous.max(own(via)),
        Some(previous) => previous,
    };
    let rung =
        |place: usize, offer: &Offer| Rung { offer: offer.clone(), wait: before(place, offer.via), repeats: false };
    let rungs = usable.iter().enumerate().map(|(place, offer)| rung(place, offer)).collect();
    match usable[..] {
        [only] => {
            let again = Rung { offer: only.clone(), wait: AGAIN, repeats: true };
            [rungs, vec![again; REPEATS]].concat()
        }
        _ => rungs,
    }
}

/// The rungs of a ladder without a winner that are worth leaving `current` for.
pub(super) fn above(mut rungs: Vec<Rung>, current: Via, demoted: &HashSet<Via>) -> Vec<Rung> {
    let place = rungs.iter().position(|rung| rung.offer.via == current).unwrap_or(rungs.len());
    rungs.truncate(place);
    rungs.retain(|rung| !demoted.contains(&rung.offer.via));
    rungs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD_START: Duration = Duration::from_millis(250);

    fn all() -> Vec<Offer> {
        let discovery = json!({"protocol": "wigwag.v1", "transports": [
            {"type": "webtransport", "url": "https://localhost:4433/v1/rooms/{room}",
             "certificateHashes": [{"algorithm": "sha-256", "value": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]},
            {"type": "websocket", "url": "wss://localhost:4433/v1/rooms/{room}"},
            {"type": "carrier-pigeon", "url": "https://localhost:4433/v1/rooms/{room}"},
            {"type": "event-stream", "url": "http://[::1]:8080/v1/rooms/{room}"},
            {"type": "long-poll", "url": "http://[::1]:8080/v1/rooms/{room}"},
        ]});
        read(discovery.to_string().as_bytes()).expect("a discovery")
    }

    fn vias(rungs: &[Rung]) -> Vec<Via> {
        rungs.iter().map(|rung| rung.offer.via).collect()
    }

    #[test]
    fn offers_are_read_in_the_servers_order_and_unknown_ones_left_out() {
        let offers = all();
        let places: Vec<_> = offers.iter().map(|offer| (offer.via, offer.endpoint.port)).collect();
        let over_quic =
            [Via::WebTransport, Via::WebSocketH3, Via::EventStreamH3, Via::LongPollH3].map(|via| (via, 4433));
        assert_eq!(places[..4], over_quic);
        assert_eq!(places[4..6], [(Via::WebSocketH2, 4433), (Via::WebSocketH1, 4433)]);
        assert_eq!(places[6..], [(Via::EventStreamH1, 8080), (Via::LongPollH1, 8080)]);
        assert_eq!(offers[0].hashes, [[0; 32]]);
        assert!(read(br#"{"protocol":"wigwag.v9","transports":[]}"#).unwrap_err().contains("wigwag.v9"));
        assert!(read(b"<html>").is_err());
    }

    #[test]
    fn what_won_goes_first_what_died_young_last_and_last_resorts_wait() {
        let rungs = ladder(&all(), &Preference::default(), HEAD_START);
        assert_eq!(vias(&rungs), USUAL);
        let waits: Vec<_> = rungs.iter().map(|rung| rung.wait.as_millis()).collect();
        assert_eq!(waits, [0, 250, 250, 1500, 3000]);
        let preference = Preference {
            winner: Some(Via::WebSocketH1),
            demoted: HashSet::from([Via::WebTransport]),
            ..Preference::default()
        };
        let first = [Via::WebSocketH1, Via::WebSocketH2, Via::EventStreamH1, Via::LongPollH1, Via::WebTransport];
        assert_eq!(vias(&ladder(&all(), &preference, HEAD_START)), first);
        let order = [Via::LongPollH1, Via::WebTransport];
        let preference = Preference { order: &order, ..Preference::default() };
        assert_eq!(vias(&ladder(&all(), &preference, HEAD_START)), order);
        let alone = Preference { order: &order[..1], ..Preference::default() };
        let rungs = ladder(&all(), &alone, HEAD_START);
        assert_eq!(vias(&rungs), [Via::LongPollH1; 3]);
        assert_eq!(rungs.iter().map(|rung| rung.repeats).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn only_what_stands_above_is_worth_a_move() {
        let rungs = || ladder(&all(), &Preference::default(), HEAD_START);
        assert_eq!(vias(&above(rungs(), Via::WebTransport, &HashSet::new())), []);
        let demoted = HashSet::from([Via::WebSocketH2]);
        assert_eq!(vias(&above(rungs(), Via::WebSocketH1, &demoted)), [Via::WebTransport]);
    }
}
