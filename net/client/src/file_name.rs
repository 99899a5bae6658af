//! File names as they travel with an image, and as they may be used where it arrives.

use std::path::Path;

use proto::limits::FILE_NAME_BYTES_MAX;

/// Bytes of a safe name: with a sequence of up to 20 digits, a dash and room for a suffix of the user's, it fits any
/// filesystem.
pub const SAFE_NAME_BYTES_MAX: usize = 200;
/// An extension up to this length survives when a name is shortened.
const EXTENSION_BYTES_MAX: usize = 16;

const _: () = assert!(SAFE_NAME_BYTES_MAX + 21 <= FILE_NAME_BYTES_MAX);

/// What to tell receivers of the file at `path`: its name without the directories, cut to what may travel.
pub fn file_hint(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    // A file name has no separator; NUL cannot be in a path.
    shorten(&name, FILE_NAME_BYTES_MAX)
}

/// A file name that is safe in any directory, made of what a sender proposed.
///
/// No path separators, control characters, characters that hide or turn text, or that some filesystem refuses; no
/// leading dots or blanks, no trailing ones; never empty; at most `SAFE_NAME_BYTES_MAX` bytes, the extension kept.
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let replaced: String = last.chars().map(|c| if is_safe(c) { c } else { '_' }).collect();
    let trimmed = replaced.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let shortened = shorten(trimmed, SAFE_NAME_BYTES_MAX);
    let shortened = shortened.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if shortened.is_empty() { "image".to_owned() } else { shortened.to_owned() }
}

fn is_safe(c: char) -> bool {
    let hides_or_turns = matches!(c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}');
    !c.is_control() && !hides_or_turns && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

/// `name` cut to `bytes_max` at a character, in front of a short extension.
fn shorten(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let extension = name.rfind('.').map(|dot| &name[dot..]).filter(|e| e.len() <= EXTENSION_BYTES_MAX).unwrap_or("");
    let mut end = bytes_max - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &name[..end])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::name::check_file_name;

    use super::{SAFE_NAME_BYTES_MAX, file_hint, safe_name};

    #[test]
    fn safe_name_cannot_leave_its_directory_or_hide() {
        for (name, expected) in [
            ("photo.jpg", "photo.jpg"),
            ("Bäume im Herbst (2).jpg", "Bäume im Herbst (2).jpg"),
            ("", "image"),
            (".", "image"),
            ("..", "image"),
            ("...", "image"),
            (".bashrc", "bashrc"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("a/", "image"),
            ("C:\\Windows\\evil.png", "evil.png"),
            ("a\0b\n\x1b[2Jc.png", "a_b__[2Jc.png"),
            ("gnp.\u{202e}gpj.exe", "gnp._gpj.exe"),
            ("a\u{200b}b", "a_b"),
            ("what?*<|>\":.gif", "what_______.gif"),
            ("  blanks  ", "blanks"),
            ("trailing. . .", "trailing"),
            ("-rf", "-rf"),
            ("\u{7f}\u{85}", "__"),
        ] {
            assert_eq!(safe_name(name), expected, "of {name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character_and_keep_their_extension() {
        let long = format!("{}.jpeg", "ü".repeat(300));
        let safe = safe_name(&long);
        assert!(safe.len() <= SAFE_NAME_BYTES_MAX && safe.ends_with("ü.jpeg"), "{safe}");
        assert_eq!(safe_name(&"x".repeat(400)), "x".repeat(SAFE_NAME_BYTES_MAX));
        assert_eq!(safe_name(&format!("a.{}", "x".repeat(400))).len(), SAFE_NAME_BYTES_MAX);
        assert_eq!(safe_name(&safe), safe, "a safe name is its own safe name");
    }

    #[test]
    fn hint_of_a_path_may_travel() {
        for path in ["photo.jpg", "/a/b/photo.jpg", "/", "..", ""] {
            assert_eq!(check_file_name(&file_hint(Path::new(path))), Ok(()), "{path}");
        }
        assert_eq!(file_hint(Path::new("/a/b/photo.jpg")), "photo.jpg");
        #[allow(clippy::unwrap_used)]
        {
            use std::os::unix::ffi::OsStrExt;
            let raw = [b"\xff".repeat(250).as_slice(), b".png"].concat();
            let hint = file_hint(Path::new(std::ffi::OsStr::from_bytes(&raw)));
            check_file_name(&hint).unwrap();
            assert!(hint.ends_with(".png"));
        }
    }
}
