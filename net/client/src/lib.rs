//! The client of Heliograph: sends images to named receivers, receives them, asks nodes how they are.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use client::{Client, DirectoryStore, Inbox, Options, Sender};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(["127.0.0.1:7001", "127.0.0.1:7002"]);
//! Client::new(options.clone())?.register("gallery")?;
//!
//! // Returns once the image is safe: durable on several nodes, its record committed by a majority.
//! let sender = Sender::connect(options.clone(), "camera")?;
//! let receivers = ["gallery".to_owned()];
//! let receipt = sender.send_file(Path::new("photo.jpg"), &receivers, |done, all| println!("{done} of {all}"))?;
//! println!("accepted as {} at {}", receipt.image, receipt.index);
//!
//! // Each image once, in order, whole; acknowledged when its file is durable.
//! let mut store = DirectoryStore::open(Path::new("received"))?;
//! let mut inbox = Inbox::open_with(options, "gallery", &mut store)?;
//! while let Some(file) = inbox.receive_file(&mut store, Duration::from_secs(1))? {
//!     println!("{} from {}", file.path.display(), file.head.sender);
//! }
//! inbox.flush(Duration::from_secs(10))?;
//! # Ok(())
//! # }
//! ```
//!
//! Two layers. The *sessions* decide: which node, what to send when, what to repeat, what to believe. They have no clock,
//! socket or thread, get time and events as arguments and return actions, so that a simulator can drive them:
//! [`sender::SenderSession`], [`inbox::InboxSession`], [`request::RequestSession`] over the common words of [`session`].
//! The *shells* ([`shell`]) carry the actions out with std sockets and threads and give programs blocking calls.
//!
//! What holds whatever fails: an image has one id for ever, so a retry never makes a second one; bytes that are not the
//! sender's are never given to a receiver; what a receiver stored is not given out again; every wait has a bound, and an
//! error says what to do.

mod backoff;
pub mod error;
pub mod file_name;
pub mod inbox;
pub mod limits;
mod line;
pub mod request;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scripted;
pub mod sender;
pub mod session;
pub mod shell;
pub mod troubles;

pub use error::{ClientError, SendError};
pub use session::Routing;
pub use shell::client::{Client, status_of};
pub use shell::inbox::{Delivery, ImageSink, Inbox};
pub use shell::options::Options;
pub use shell::probe::{ProbeLoad, ProbePlan, ProbeReport, ProbeSample};
pub use shell::sender::{PendingImage, Receipt, Sender};
pub use shell::source::{FileSource, ImageSource, MemorySource};
pub use shell::store::{DirectoryStore, StoredFile};
pub use troubles::Troubles;
