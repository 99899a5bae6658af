//! The rules for names. Everything that travels has passed them, so nobody behind the codecs need ask again.

use crate::limits::{FILE_NAME_BYTES_MAX, NAME_BYTES_MAX};

/// Why a client name or a file name is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// A client name has at least one character.
    #[error("the name is empty")]
    Empty,
    /// More than `NAME_BYTES_MAX` or `FILE_NAME_BYTES_MAX` bytes.
    #[error("the name has {found} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes of the name.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A client name is of ASCII letters, digits, '.', '_' and '-'; a file name has no '/' and no NUL.
    #[error("the name has {found:?} at byte {position}, which is not allowed there")]
    BadCharacter {
        /// The first character that is not allowed.
        found: char,
        /// Where it begins.
        position: usize,
    },
    /// The file names "." and "..".
    #[error("the file name names a directory")]
    Directory,
}

/// Whether `name` may be the name of a client: 1 to `NAME_BYTES_MAX` of ASCII letters, digits, '.', '_' and '-'.
///
/// '@' is not among them, so that `name@cluster` can be told from a name.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { found: name.len(), max: NAME_BYTES_MAX });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.bytes().all(allowed) {
        return Ok(());
    }
    first_character(name, |character| !character.is_ascii() || !allowed(character as u8))
}

/// Whether `name` may accompany an image: at most `FILE_NAME_BYTES_MAX` bytes, without '/' and NUL, not "." or "..".
///
/// It may be empty: the sender gave none. It is a hint all the same; who writes a file of that name adds a number to it.
pub fn check_file_name(name: &str) -> Result<(), NameError> {
    if name.len() > FILE_NAME_BYTES_MAX {
        return Err(NameError::TooLong { found: name.len(), max: FILE_NAME_BYTES_MAX });
    }
    if matches!(name, "." | "..") {
        return Err(NameError::Directory);
    }
    first_character(name, |character| matches!(character, '/' | '\0'))
}

fn first_character(name: &str, bad: impl Fn(char) -> bool) -> Result<(), NameError> {
    match name.char_indices().find(|&(_, character)| bad(character)) {
        Some((position, found)) => Err(NameError::BadCharacter { found, position }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{NameError, check_file_name, check_name};

    fn check(verdict: Result<(), NameError>, expected: &str) {
        let text = verdict.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert_eq!(text, expected);
    }

    #[test]
    fn client_name_is_letters_digits_dot_underscore_and_dash() {
        check(check_name("gallery"), "ok");
        check(check_name("A-z_0.9"), "ok");
        check(check_name(&"x".repeat(128)), "ok");
        check(check_name(""), "the name is empty");
        check(check_name(&"x".repeat(129)), "the name has 129 bytes, at most 128 are allowed");
        check(check_name("gallery@other"), "the name has '@' at byte 7, which is not allowed there");
        check(check_name("a b"), "the name has ' ' at byte 1, which is not allowed there");
        check(check_name("bäume"), "the name has 'ä' at byte 1, which is not allowed there");
        check(check_name("a\0"), "the name has '\\0' at byte 1, which is not allowed there");
    }

    #[test]
    fn file_name_is_never_a_path() {
        check(check_file_name(""), "ok");
        check(check_file_name("Bäume im Herbst (2).jpg"), "ok");
        check(check_file_name("...jpg"), "ok");
        check(check_file_name(&"x".repeat(255)), "ok");
        check(check_file_name(&"x".repeat(256)), "the name has 256 bytes, at most 255 are allowed");
        check(check_file_name("../x"), "the name has '/' at byte 2, which is not allowed there");
        check(check_file_name("x\0.jpg"), "the name has '\\0' at byte 1, which is not allowed there");
        check(check_file_name("."), "the file name names a directory");
        check(check_file_name(".."), "the file name names a directory");
    }
}
