//! The client of Heliograph: pure sessions, and blocking shells around them for programs.

mod backoff;
pub mod error;
pub mod file_name;
pub mod inbox;
pub mod limits;
mod line;
pub mod request;
pub mod sender;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scripted;
pub mod session;
pub mod shell;

pub use error::{ClientError, SendError};
pub use session::Routing;
pub use shell::client::Client;
pub use shell::inbox::{Delivery, Inbox};
pub use shell::options::Options;
pub use shell::probe::{ProbeLoad, ProbePlan, ProbeReport, ProbeSample};
pub use shell::sender::{PendingImage, Receipt, Sender};
pub use shell::source::{FileSource, ImageSource, MemorySource};
pub use shell::store::{DirectoryStore, StoredFile};
