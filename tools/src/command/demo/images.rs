//! The photographs of the demo: built into the executable, or the user's own.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::args::DemoArguments;
use crate::exit::{Cause, Failure};

/// Bytes of the user's own images that the demo takes: it keeps them in memory to compare.
const BYTES_MAX: u64 = 1 << 30;

/// A file name and its bytes.
pub struct Photograph {
    pub name: String,
    pub bytes: Arc<Vec<u8>>,
}

macro_rules! built_in {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../../images/", $name)).as_slice())),*]
    };
}

/// Real photographs; sources and licences in `tools/images/LICENSES.md`.
static BUILT_IN: [(&str, &[u8]); 6] =
    built_in!["astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg", "hubble_deep_field.jpg", "retina.jpg"];

/// Those of the command line.
pub fn load(arguments: &DemoArguments) -> Result<Vec<Photograph>, Failure> {
    let mut photographs = match &arguments.images {
        Some(folder) => read(folder)?,
        None => BUILT_IN
            .iter()
            .map(|(name, bytes)| Photograph { name: (*name).to_owned(), bytes: Arc::new(bytes.to_vec()) })
            .collect(),
    };
    photographs.truncate(arguments.images_count.max(1));
    Ok(photographs)
}

fn read(folder: &Path) -> Result<Vec<Photograph>, Failure> {
    let unread = |path: &Path, error: &std::io::Error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "is missing: name a folder with images",
            ErrorKind::NotADirectory => "is no folder: name the folder with the images",
            ErrorKind::PermissionDenied => {
                "may not be read by this user: correct its permissions, or name another folder"
            }
            _ => return Failure::new(Cause::File, format!("{}: cannot be read: {error}", path.display())),
        };
        Failure::new(Cause::File, format!("{}: {remedy}", path.display()))
    };
    let failure = |error: std::io::Error| unread(folder, &error);
    let mut found = Vec::new();
    let mut total = 0;
    for entry in fs::read_dir(folder).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let path = entry.path();
        let metadata = fs::metadata(&path).map_err(|error| unread(&path, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !metadata.is_file() || metadata.len() == 0 || name.starts_with('.') {
            continue;
        }
        total += metadata.len();
        if total > BYTES_MAX {
            return Err(Failure::new(
                Cause::File,
                format!("{}: has more than {BYTES_MAX} bytes of images: name a folder with fewer", folder.display()),
            ));
        }
        found.push(Photograph { name, bytes: Arc::new(fs::read(&path).map_err(|error| unread(&path, &error))?) });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        return Err(Failure::new(
            Cause::File,
            format!(
                "{}: has no files to send (folders, empty and hidden files are passed over): name a folder with images",
                folder.display()
            ),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::BUILT_IN;

    #[test]
    fn built_in_photographs_are_the_files_of_the_tree() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/images");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is in the tree")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "LICENSES.md")
            .collect();
        files.sort();
        let built_in: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, built_in);
    }
}
