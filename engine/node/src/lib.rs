//! A Heliograph node: joins `logic` (decisions), `disk` (files) and `link` (sockets) and decides nothing itself.
//!
//! One executor per core; each runs a shard loop that turns inputs into steps of `logic::shard::Shard` and carries out the
//! effects. `run` blocks until the node was stopped or cannot go on.

mod buffers;
mod clients;
mod clock;
pub mod config;
mod core;
mod disk_ops;
mod effects;
mod ending;
pub mod error;
pub mod forecast;
mod inputs;
pub mod limits;
mod links;
mod mesh;
mod pools;
mod rejoin;
pub mod repair;
mod route;
pub mod run;
mod shard_loop;
mod snapshots;
mod start;
pub mod stop;
mod waiting;

pub use config::{ConfigError, FlushChoice, MemberConfig, NodeConfig};
pub use error::{ErrorKind, NodeError};
pub use forecast::{Forecast, forecast};
pub use run::{Listeners, run, run_with};
pub use stop::StopHandle;
