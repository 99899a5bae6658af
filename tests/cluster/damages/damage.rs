//! One damage: a block of one file is flipped, zeroed, cut off, duplicated or swapped.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cluster::random::Random;

use crate::template::{FileKind, Stored, Template};

/// Draws until something changes: zeros over zeros are no damage.
const DRAWS_MAX: usize = 1000;
/// How large blocks are; smaller in smaller files.
const BLOCKS_BYTES: [u64; 8] = [1, 8, 64, 512, 512, 4096, 4096, 65_536];
/// How often each kind of file is chosen, as far as there is one.
const WEIGHTS: [(FileKind, u64); 9] = [
    (FileKind::Marker, 1),
    (FileKind::Lock, 1),
    (FileKind::Identity, 1),
    (FileKind::Vote, 2),
    (FileKind::Segment, 5),
    (FileKind::Rounds, 3),
    (FileKind::Spare, 1),
    (FileKind::Snapshot, 3),
    (FileKind::ChunkFile, 4),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DamageKind {
    Flip,
    Zero,
    Truncate,
    Duplicate,
    Swap,
}

impl DamageKind {
    pub fn name(self) -> &'static str {
        match self {
            DamageKind::Flip => "flip",
            DamageKind::Zero => "zero",
            DamageKind::Truncate => "truncate",
            DamageKind::Duplicate => "duplicate",
            DamageKind::Swap => "swap",
        }
    }
}

/// What is changed, and how.
#[derive(Clone, Debug)]
pub struct Damage {
    pub kind: DamageKind,
    pub file_kind: FileKind,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum Edit {
    Write { path: PathBuf, offset: u64, bytes: Vec<u8> },
    Cut { path: PathBuf, length: u64 },
}

impl Damage {
    /// One that changes something.
    pub fn draw(random: &mut Random, template: &Template) -> Damage {
        for _ in 0..DRAWS_MAX {
            let file = draw_file(random, template);
            let kinds =
                [DamageKind::Flip, DamageKind::Zero, DamageKind::Truncate, DamageKind::Duplicate, DamageKind::Swap];
            let kind = random.one(&kinds);
            let edits = match kind {
                DamageKind::Flip => flip(random, file),
                DamageKind::Zero => {
                    let (offset, length) = draw_block(random, file);
                    vec![write(file, offset, vec![0; length])]
                }
                DamageKind::Truncate => vec![Edit::Cut { path: file.path.clone(), length: draw_length(random, file) }],
                DamageKind::Duplicate | DamageKind::Swap => {
                    let other = draw_other(random, template, file);
                    two_blocks(random, file, other, kind == DamageKind::Swap)
                }
            };
            let edits: Vec<Edit> = edits.into_iter().filter(|edit| edit.changes(template)).collect();
            if !edits.is_empty() {
                return Damage { kind, file_kind: file.kind, edits };
            }
        }
        panic!("{DRAWS_MAX} draws change nothing");
    }

    /// Does it to the files below `directory`.
    pub fn apply(&self, directory: &Path) -> io::Result<()> {
        for edit in &self.edits {
            match edit {
                Edit::Write { path, offset, bytes } => {
                    File::options().write(true).open(directory.join(path))?.write_all_at(bytes, *offset)?;
                }
                Edit::Cut { path, length } => {
                    File::options().write(true).open(directory.join(path))?.set_len(*length)?;
                }
            }
        }
        Ok(())
    }

    /// The files that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.edits.iter().map(|edit| match edit {
            Edit::Write { path, .. } | Edit::Cut { path, .. } => path.as_path(),
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.name())?;
        for edit in &self.edits {
            match edit {
                Edit::Write { path, offset, bytes } => {
                    write!(f, " {} at {offset}, {} bytes", path.display(), bytes.len())?;
                }
                Edit::Cut { path, length } => write!(f, " {} to {length} bytes", path.display())?,
            }
        }
        Ok(())
    }
}

impl Edit {
    fn changes(&self, template: &Template) -> bool {
        let file = |path: &Path| template.files.iter().find(|file| file.path == path);
        match self {
            Edit::Write { path, offset, bytes } => {
                file(path).is_some_and(|file| file.bytes(*offset, bytes.len()) != *bytes)
            }
            Edit::Cut { path, length } => file(path).is_some_and(|file| *length < file.length),
        }
    }
}

fn write(file: &Stored, offset: u64, bytes: Vec<u8>) -> Edit {
    Edit::Write { path: file.path.clone(), offset, bytes }
}

fn draw_file<'t>(random: &mut Random, template: &'t Template) -> &'t Stored {
    let of_kind = |kind: FileKind| template.files.iter().filter(move |file| file.kind == kind && file.length > 0);
    let there: Vec<(FileKind, u64)> = WEIGHTS.into_iter().filter(|(kind, _)| of_kind(*kind).next().is_some()).collect();
    let mut left = random.between(1, there.iter().map(|(_, weight)| weight).sum());
    let mut chosen = there[0].0;
    for (kind, weight) in there {
        chosen = kind;
        if left <= weight {
            break;
        }
        left -= weight;
    }
    let files: Vec<&Stored> = of_kind(chosen).collect();
    random.one(&files)
}

/// Mostly the file itself; sometimes another one of its kind, rarely any.
fn draw_other<'t>(random: &mut Random, template: &'t Template, file: &'t Stored) -> &'t Stored {
    let others: Vec<&Stored> = match random.between(0, 99) {
        0..70 => return file,
        70..95 => template.files.iter().filter(|other| other.kind == file.kind).collect(),
        _ => template.files.iter().filter(|other| other.length > 0).collect(),
    };
    random.one(&others)
}

/// Where something is, mostly.
fn draw_place(random: &mut Random, file: &Stored) -> u64 {
    let in_piece =
        |random: &mut Random, (offset, bytes): &(u64, Vec<u8>)| offset + random.between(0, bytes.len() as u64 - 1);
    let place = match (random.between(0, 99), file.pieces.last()) {
        (0..10, _) | (_, None) => random.between(0, file.length - 1),
        (10..25, _) => random.between(0, (file.length - 1).min(4095)),
        // Where the node wrote last.
        (25..45, Some(last)) => in_piece(random, last),
        _ => {
            let piece = &file.pieces[random.between(0, file.pieces.len() as u64 - 1) as usize];
            in_piece(random, piece)
        }
    };
    match random.between(0, 3) {
        0 => place,
        1 => place / 8 * 8,
        2 => place / 512 * 512,
        _ => place / 4096 * 4096,
    }
}

fn draw_block(random: &mut Random, file: &Stored) -> (u64, usize) {
    let offset = draw_place(random, file);
    let length = random.one(&BLOCKS_BYTES) * random.one(&[1, 1, 1, 2, 3, 7]);
    (offset, length.min(file.length - offset) as usize)
}

fn draw_length(random: &mut Random, file: &Stored) -> u64 {
    if random.percent(8) { 0 } else { draw_place(random, file) }
}

/// Mostly one bit, sometimes a few bytes.
fn flip(random: &mut Random, file: &Stored) -> Vec<Edit> {
    let (offset, length) = if random.percent(70) { (draw_place(random, file), 1) } else { draw_block(random, file) };
    let mut bytes = file.bytes(offset, length.min(32));
    if bytes.len() == 1 {
        bytes[0] ^= 1 << random.between(0, 7);
    } else {
        bytes.iter_mut().for_each(|byte| *byte = random.number() as u8);
    }
    vec![write(file, offset, bytes)]
}

/// A block of `other` over one of `file`, and the other way round if they are swapped.
fn two_blocks(random: &mut Random, file: &Stored, other: &Stored, is_swap: bool) -> Vec<Edit> {
    let (target, length) = draw_block(random, file);
    // Half of the time a block of the same place in the grid, as a disk would do it.
    let place = draw_place(random, other);
    let source = if random.percent(50) && length > 0 { place / length as u64 * length as u64 } else { place };
    let length = length.min((other.length - source) as usize);
    let mut edits = vec![write(file, target, other.bytes(source, length))];
    if is_swap {
        edits.push(write(other, source, file.bytes(target, length)));
    }
    edits
}
