//! A relay over TLS that knows nothing: what tokio and rustls cost by themselves.

use std::sync::Arc;

use wigwag_peers::relay::Rooms;
use wigwag_peers::serving::{self, Arguments};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let rooms = Arc::new(Rooms::default());
    serving::run(serving::serve_tls(&arguments, b"raw", move |stream| {
        let rooms = Arc::clone(&rooms);
        // In its own place, not in every future that has it for a while.
        let stream = Box::new(stream);
        async move {
            // A client that is lost has nothing to be told.
            let _ = rooms.serve(stream).await;
        }
    }))
}
