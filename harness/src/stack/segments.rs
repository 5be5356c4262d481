//! Shared memory of databases that were killed. The kernel keeps a segment (System V) until somebody removes it, and what lies in
//! `/dev/shm` likewise. A Postgres that is killed, rather than ended, cannot; the next one on the same data would, and for a run that
//! is over there is none. What it shares besides lies in its data folder, see [`super::postgres`].

use std::path::{Path, PathBuf};

/// Removes the segments that the databases below a run's private folder made and nobody uses any more.
pub fn remove_unused(folder: &Path) {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for notes in notes_below(folder) {
        let notes = std::fs::read_to_string(notes).unwrap_or_default();
        if let Some((segment, maker)) = noted(&notes)
            && is_unused(&table, segment, maker)
        {
            if let Some(file) = controlled_by(segment, maker) {
                let _ = std::fs::remove_file(file);
            }
            // SAFETY: the call takes the segment by its number; where it is gone or somebody else's, it fails and nothing changes.
            unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

/// What databases write down of themselves, in their data folders: these lie in the private folder, or on a disk in it.
fn notes_below(folder: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders: Vec<PathBuf> =
        inside(folder).flat_map(|one| inside(&one).chain([one.clone()]).collect::<Vec<_>>()).collect();
    folders.into_iter().map(|data| data.join("postmaster.pid")).filter(|notes| notes.is_file()).collect()
}

/// The file of shared memory that a segment's header leads to. Its number stands behind a magic number, the maker's, and two sizes. A
/// database that is only being made keeps it in `/dev/shm`, whatever it is told.
fn controlled_by(segment: i32, maker: i32) -> Option<PathBuf> {
    const MAGIC: u32 = 679_834_894;
    const HEADER: usize = 28;
    let mut header = [0u8; HEADER];
    // SAFETY: it is attached for reading only, wherever the kernel likes, and a segment is a whole page at least.
    unsafe {
        let at = libc::shmat(segment, std::ptr::null(), libc::SHM_RDONLY);
        if at as isize == -1 {
            return None;
        }
        std::ptr::copy_nonoverlapping(at.cast::<u8>(), header.as_mut_ptr(), HEADER);
        libc::shmdt(at);
    }
    let number = |from: usize| header.get(from..from + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let own = number(0)? == MAGIC && number(4)? == maker.unsigned_abs();
    own.then(|| number(24).map(|control| PathBuf::from(format!("/dev/shm/PostgreSQL.{control}"))))?
}

/// The segment that a `postmaster.pid` names in its seventh line, after its key, and the process that made it, of the first; a minus
/// before that one says that it serves nobody else.
fn noted(notes: &str) -> Option<(i32, i32)> {
    let mut lines = notes.lines();
    let maker = lines.next()?.trim().parse::<i32>().ok()?.abs();
    let segment = lines.nth(5)?.split_whitespace().nth(1)?.parse().ok()?;
    Some((segment, maker))
}

/// Whether the kernel's table has this segment as one that this process made and nobody is attached to.
fn is_unused(table: &str, segment: i32, maker: i32) -> bool {
    table.lines().any(|line| {
        let fields: Vec<i64> = line.split_whitespace().map(|field| field.parse().unwrap_or(-1)).collect();
        // key, shmid, perms, size, cpid, lpid, nattch
        matches!(fields.as_slice(), [_, id, _, _, cpid, _, 0, ..] if (*id, *cpid) == (segment.into(), maker.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_removed_when_its_maker_is_known_and_nobody_is_attached() {
        // SAFETY: a new segment of this process's own, which nobody is attached to.
        let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 64, 0o600) };
        assert!(segment >= 0, "{}", std::io::Error::last_os_error());
        let there = || std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let (maker, root) = (std::process::id() as i32, tempfile::tempdir().unwrap());
        let control = std::process::id() + (1 << 31);
        let file = PathBuf::from(format!("/dev/shm/PostgreSQL.{control}"));
        std::fs::write(&file, "").unwrap();
        let header = [679_834_894, maker as u32, 0, 0, 0, 0, control].map(u32::to_ne_bytes).concat();
        // SAFETY: the segment is this test's own, and longer than the header.
        unsafe {
            let at = libc::shmat(segment, std::ptr::null(), 0);
            std::ptr::copy_nonoverlapping(header.as_ptr(), at.cast::<u8>(), header.len());
            libc::shmdt(at);
        }
        let data = root.path().join("disk/postgres");
        std::fs::create_dir_all(&data).unwrap();
        let write = |maker: i32| {
            let notes = format!("{maker}\n/data\n1700000000\n5432\n/sockets\n\n 10232873  {segment}\nready\n");
            std::fs::write(data.join("postmaster.pid"), notes).unwrap();
        };
        // Somebody else's that has the number by now.
        write(maker + 1);
        remove_unused(root.path());
        assert!(is_unused(&there(), segment, maker) && file.exists());
        write(-maker);
        remove_unused(root.path());
        assert!(!is_unused(&there(), segment, maker) && !file.exists());
        assert_eq!(noted("12\n/data\n"), None, "it was killed before it had any");
    }

    #[test]
    fn a_segment_in_use_is_left_alone() {
        let table =
            "key shmid perms size cpid lpid nattch uid\n 10232873 32768 600 56 71 99 11 108\n 7 5 600 56 71 99 0 108\n";
        assert!(!is_unused(table, 32768, 71) && is_unused(table, 5, 71) && !is_unused(table, 5, 72));
    }
}
