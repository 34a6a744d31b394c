//! The same signaling server as `socketio.mjs`, on socketioxide.

use serde::Deserialize;
use serde_json::Value;
use socketioxide::extract::{Data, SocketRef};
use socketioxide::socket::Sid;
use socketioxide::{SendError, SocketIo};
use wigwag_peers::serving::{self, Arguments};

/// More than any message to come while one is written; what does not fit is lost.
const BUFFER: usize = 4096;

#[derive(Deserialize)]
struct Entering {
    room: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let (layer, io) = SocketIo::builder().max_buffer_size(BUFFER).build_layer();
    io.ns("/", enter);
    serving::run(serving::serve_http(&arguments, axum::Router::new().layer(layer)))
}

async fn enter(socket: SocketRef, Data(Entering { room }): Data<Entering>) {
    socket.join(room.clone());
    socket.on("message", async move |io: SocketIo, from: SocketRef, Data((to, data)): Data<(Option<Sid>, Value)>| {
        let message = (from.id, data);
        // Whoever is gone misses it.
        match to {
            Some(to) => {
                let _ = io.get_socket(to).map(|other| other.emit("message", &message));
            }
            None => {
                let _ = from.to(room.clone()).emit("message", &message).await;
            }
        }
    });
    let _: Result<(), SendError> = socket.emit("joined", &());
}
