//! Results that are kept in a folder of their own: a file for programs, what people read of it, and the folders of the runs that
//! it was made of. Evidence is never written over.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit;

/// A kind of result.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The file for programs.
    pub file: &'static str,
    /// The command that makes it.
    pub maker: &'static str,
}

/// Why a result cannot be kept, or not be read again.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The folder cannot be written or read.
    #[error("{}: {source}\nhelp: free some space there, or name another place with --out", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is something already.
    #[error("{} is not empty, and evidence is never written over\nhelp: name another folder with --out", .0.display())]
    Taken(PathBuf),
    /// The file is not one of ours.
    #[error("{}: {source}\nhelp: only folders that `{maker}` made have one", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Who makes such files.
        maker: &'static str,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl KeptError {
    /// The exit code that it ends a command with.
    pub fn exit_code(&self) -> i32 {
        match self {
            KeptError::Taken(_) | KeptError::File { .. } => exit::USAGE,
            KeptError::Folder { .. } => exit::INTERNAL,
        }
    }
}

impl Kept {
    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made, or something is in it.
    pub fn make(self, folder: &Path) -> Result<(), KeptError> {
        let fail = |source| KeptError::Folder { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(fail)?;
        match std::fs::read_dir(folder).map_err(fail)?.next() {
            None => Ok(()),
            Some(_) => Err(KeptError::Taken(folder.to_owned())),
        }
    }

    /// The result that a folder holds; none if there is none in it.
    ///
    /// # Errors
    /// The file cannot be read, or is not one of ours.
    pub fn read<T: DeserializeOwned>(self, folder: &Path) -> Result<Option<T>, KeptError> {
        let path = folder.join(self.file);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| KeptError::Folder { path: path.clone(), source })?;
        let maker = self.maker;
        serde_json::from_slice(&bytes).map(Some).map_err(|source| KeptError::File { path, maker, source })
    }

    /// Writes a result, and beside it what people read of it: the names of files, and what is in them.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(self, folder: &Path, result: &impl Serialize, rendered: &[(&str, Vec<u8>)]) -> Result<(), KeptError> {
        let (path, maker) = (folder.join(self.file), self.maker);
        let json = serde_json::to_vec_pretty(result).map_err(|source| KeptError::File { path, maker, source })?;
        for (name, bytes) in std::iter::once(&(self.file, json)).chain(rendered) {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|source| KeptError::Folder { path, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_never_written_over() {
        let there = tempfile::tempdir().unwrap();
        let folder = there.path().join("made");
        let kept = Kept { file: "it.json", maker: "seckill it" };
        assert_eq!(kept.read::<Vec<u32>>(&folder).unwrap(), None);
        kept.make(&folder).unwrap();
        kept.write(&folder, &[1, 2], &[("it.md", b"# it".to_vec())]).unwrap();
        assert_eq!(kept.read::<Vec<u32>>(&folder).unwrap(), Some(vec![1, 2]));
        assert_eq!(std::fs::read(folder.join("it.md")).unwrap(), b"# it");
        let taken = kept.make(&folder).unwrap_err();
        assert!(taken.to_string().contains("is not empty") && taken.exit_code() == exit::USAGE, "{taken}");
        let foreign = kept.read::<String>(&folder).unwrap_err();
        assert!(foreign.to_string().contains("only folders that `seckill it` made"), "{foreign}");
        let lost = kept.write(&there.path().join("none"), &1, &[]).unwrap_err();
        assert_eq!(lost.exit_code(), exit::INTERNAL);
    }
}
