//! A small disk of its own for a database: a file that is mounted like one, so that it can be full without harm to others.
//!
//! Its mount lies in the run's private folder, by whose name the guard knows it and takes it away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::StackError;
use super::leftovers::quiet;
use super::process::RunAs;
use crate::doctor;
use crate::scenario::value::Size;

/// The key that asks for it.
const KEY: &str = "target.reference.small_disk";

/// Whether such a disk can be made here; to be asked before anything is started.
///
/// # Errors
/// Only root may mount, and needs two programs for it.
pub fn possible() -> Result<(), StackError> {
    let refuse = |what: &str, help: String| Err(StackError::Setting { key: KEY, what: what.to_owned(), help });
    if !nix::unistd::geteuid().is_root() {
        let help = "run it as root, or remove small_disk and the disk-full faults".to_owned();
        return refuse("only root may mount the disk that this asks for", help);
    }
    for (program, package) in [("mkfs.ext4", "e2fsprogs"), ("mount", "mount")] {
        if doctor::on_path(program).is_none() {
            let help = format!("install the package {package}, or remove small_disk and the disk-full faults");
            return refuse(&format!("there is no {program} here, which the disk is made with"), help);
        }
    }
    Ok(())
}

/// Makes and mounts a disk of that size below `folder`, for that user; returns where it is.
///
/// # Errors
/// The system refuses, as it does in containers without the privilege.
pub fn make(folder: &Path, size: Size, owner: Option<RunAs>) -> Result<PathBuf, StackError> {
    let (image, mounted) = (folder.join("disk.img"), folder.join("disk"));
    let cannot = |what: String| {
        StackError::Setting {
        key: KEY,
        what,
        help: "loop devices have to be allowed here, as they are on a machine of one's own; or remove small_disk and the disk-full faults".to_owned(),
    }
    };
    // A sparse file: what the database does not write takes no room.
    let file = File::create(&image).and_then(|file| file.set_len(size.0));
    file.map_err(|e| StackError::io(format!("cannot make {}", image.display()), e))?;
    std::fs::create_dir(&mounted).map_err(|e| StackError::io(format!("cannot make {}", mounted.display()), e))?;
    // Nothing is reserved for root, so full means full for everybody.
    run("mkfs.ext4", &[&"-q", &"-F", &"-m", &"0", &image]).map_err(cannot)?;
    // The loop device goes when the mount goes.
    run("mount", &[&"-o", &"loop,nosuid,nodev,noatime", &image, &mounted]).map_err(cannot)?;
    if let Some(user) = owner {
        std::os::unix::fs::chown(&mounted, Some(user.uid), Some(user.gid))
            .map_err(|e| StackError::io(format!("cannot give {} to user {}", mounted.display(), user.uid), e))?;
    }
    Ok(mounted)
}

fn run(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<(), String> {
    let path = doctor::on_path(program).unwrap_or_else(|| program.into());
    let mut command = Command::new(path);
    command.args(arguments.iter().map(|argument| (*argument).as_ref()));
    quiet(&mut command).map_err(|why| format!("{program} failed: {why}"))
}
