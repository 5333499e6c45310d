//! Damage to the files of a data directory, chosen by a seed: the unnoticed effects of disks, copies and
//! people on files.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use throng_model::{Entropy, SplitMix64};

/// One change to the files of a folder. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// One bit is inverted.
    Flip {
        /// The file.
        file: PathBuf,
        /// The bit, from 0.
        bit: u64,
    },
    /// The file is truncated.
    Truncate {
        /// The file.
        file: PathBuf,
        /// The remaining length, in bytes.
        length: u64,
    },
    /// The rest of the file is filled with zeros, as after a crash of the machine.
    Zero {
        /// The file.
        file: PathBuf,
        /// The offset of the first zero.
        from: u64,
    },
    /// The file is deleted.
    Delete {
        /// The file.
        file: PathBuf,
    },
    /// Two files exchange their names.
    Exchange {
        /// A file.
        one: PathBuf,
        /// Another one.
        other: PathBuf,
    },
    /// A file gets the contents of another one.
    Replace {
        /// The file that changes.
        file: PathBuf,
        /// The file whose contents it gets.
        by: PathBuf,
    },
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { file, bit } => write!(f, "bit {bit} of {} flipped", file.display()),
            Self::Truncate { file, length } => {
                write!(f, "{} cut to {length} bytes", file.display())
            }
            Self::Zero { file, from } => write!(f, "{} zeros from {from}", file.display()),
            Self::Delete { file } => write!(f, "{} deleted", file.display()),
            Self::Exchange { one, other } => {
                write!(f, "{} and {} exchanged", one.display(), other.display())
            }
            Self::Replace { file, by } => {
                write!(f, "{} replaced by {}", file.display(), by.display())
            }
        }
    }
}

impl Mutation {
    /// Chooses a mutation of the files of a folder: the same for the same files and seed. All kinds of
    /// mutations are equally likely.
    ///
    /// # Errors
    /// If the folder cannot be read or has no file with contents.
    pub fn choose(folder: &Path, seed: u64) -> io::Result<Self> {
        let files = files(folder)?;
        let filled: Vec<&(PathBuf, u64)> = files.iter().filter(|(_, length)| *length > 0).collect();
        if filled.is_empty() {
            return Err(io::Error::other(format!("{} has no file", folder.display())));
        }
        let mut random = SplitMix64::new(seed);
        let pick = |random: &mut SplitMix64| filled[random.below(filled.len() as u64) as usize];
        let (file, length) = pick(&mut random).clone();
        // Files of the same kind are exchanged: a file of another kind is detected by its first bytes.
        let same_kind: Vec<&PathBuf> = filled
            .iter()
            .map(|(path, _)| path)
            .filter(|path| **path != file && path.extension() == file.extension())
            .collect();
        let other = match same_kind.is_empty() {
            true => pick(&mut random).0.clone(),
            false => same_kind[random.below(same_kind.len() as u64) as usize].clone(),
        };
        Ok(match random.below(6) {
            0 => Self::Flip { bit: random.below(length * 8), file },
            1 => Self::Truncate { length: random.below(length), file },
            2 => Self::Zero { from: random.below(length), file },
            3 => Self::Delete { file },
            4 => Self::Exchange { one: file, other },
            _ => Self::Replace { file, by: other },
        })
    }

    /// Applies the mutation. Files are replaced by rename, so that a process which has them open keeps the
    /// old contents.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn apply(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Flip { file, bit } => edit(&folder.join(file), |bytes| {
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
            }),
            Self::Truncate { file, length } => {
                edit(&folder.join(file), |bytes| bytes.truncate(*length as usize))
            }
            Self::Zero { file, from } => edit(&folder.join(file), |bytes| {
                bytes.iter_mut().skip(*from as usize).for_each(|byte| *byte = 0);
            }),
            Self::Delete { file } => fs::remove_file(folder.join(file)),
            // The only file of its kind is exchanged with itself.
            Self::Exchange { one, other } if one == other => Ok(()),
            Self::Exchange { one, other } => {
                let (one, other) = (folder.join(one), folder.join(other));
                let temporary = one.with_added_extension("exchange");
                fs::rename(&one, &temporary)?;
                fs::rename(&other, &one)?;
                fs::rename(&temporary, &other)
            }
            Self::Replace { file, by } => {
                let bytes = fs::read(folder.join(by))?;
                edit(&folder.join(file), |old| *old = bytes)
            }
        }
    }
}

/// Replaces a file by its edited contents.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    let temporary = path.with_added_extension("edit");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// The files below a folder with their lengths, by name.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(&below)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let length = File::open(&path)?.metadata()?.len();
                let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
                found.push((name, length));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder with all its contents.
///
/// # Errors
/// If something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        match path.is_dir() {
            true => copy_folder(&path, &to.join(name))?,
            false => fs::copy(&path, to.join(name)).map(|_| ())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let files = files(folder).unwrap().into_iter();
        files.map(|(name, _)| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
    }

    #[test]
    fn every_kind_of_mutation_occurs_and_has_its_effect() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        fs::create_dir_all(whole.join("b")).unwrap();
        for (name, byte) in [("a.x", 1), ("b/c.x", 2), ("b/d.y", 3)] {
            fs::write(whole.join(name), vec![byte; 100]).unwrap();
        }
        let before = contents(&whole);
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            let damaged = dir.path().join(seed.to_string());
            copy_folder(&whole, &damaged).unwrap();
            assert_eq!(contents(&damaged), before);
            let mutation = Mutation::choose(&damaged, seed).unwrap();
            assert_eq!(mutation, Mutation::choose(&whole, seed).unwrap());
            mutation.apply(&damaged).unwrap();
            // The only file of its kind may be exchanged with itself.
            let no_effect = match &mutation {
                Mutation::Exchange { one, other } => one == other,
                Mutation::Replace { file, by } => file == by,
                _ => false,
            };
            assert_eq!(contents(&damaged) == before, no_effect, "{mutation}");
            kinds.insert(format!("{mutation:?}").split(" {").next().unwrap().to_owned());
            fs::remove_dir_all(damaged).unwrap();
        }
        assert_eq!(kinds.len(), 6);
    }
}
