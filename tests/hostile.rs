//! Sessions on networks that lose packets, change under them and vanish, and beside clients and servers that die.
//!
//! What needs no network of its own are ordinary tests. The rest is ignored unless `scripts/hostile` runs it: in the namespace of
//! the clients, with the server in another one and two links between them ([`network`]).

mod client;
mod conversation;
mod killed;
mod loss;
mod migration;
mod network;
mod partition;
pub(crate) mod process;
mod report;
mod restart;
mod vanishing;
mod watcher;
