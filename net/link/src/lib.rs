//! Sockets and the core-to-core mesh, on glommio. Knows frames, not uploads.
//!
//! ```text
//!             Bound -> Listener -> Accepted (Send: moves to its core) -> Connection
//!  clients:   Connection.reader() -> FrameReader      Connection.serve(&Outbox, reading loop)      CreditMeter
//!  peers:     IncomingLink::welcome(accepted) .run(messages)      Peers.send(to, lane, message, body)
//!  cores:     mesh() -> MeshSeat.send / receive
//! ```
//! Everything but `Bound`, `Accepted` and `MeshSeat` belongs to one core and is not `Send`. Per body of 1 MiB there is no
//! copy in user space, in either direction, except of what was read ahead together with small frames before it.

pub mod connection;
pub mod credit;
pub mod dial;
pub mod incoming;
pub mod limits;
pub mod listen;
pub mod local;
pub mod measure;
pub mod mesh;
pub mod outbox;
pub mod peers;
pub mod reader;
mod stream;

pub use connection::{Connection, ConnectionEnd};
pub use credit::{CreditGuard, CreditMeter};
pub use dial::{DialError, connect};
pub use incoming::{IncomingLink, LinkError, LinkMessage};
pub use limits::OutboxLimits;
pub use listen::{Accepted, Bound, ListenError, Listener};
pub use local::{Event, Tasks, breathe, guarded, within};
pub use mesh::{MeshError, MeshSeat, mesh};
pub use outbox::{OutBody, Outbox, SendError};
pub use peers::{PeerEvent, PeerIdentity, PeerStats, Peers};
pub use reader::{BufferSource, Frame, FrameReader, FreshBuffers, ReadError, ReadStats, ReceivedBody};
