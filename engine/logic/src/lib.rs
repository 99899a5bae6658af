//! Every decision of Heliograph, one file per stage of the walk of an image. No clock, file, socket, thread or async.

pub mod io;
pub mod limits;
