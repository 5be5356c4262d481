//! Shared memory of databases that were killed. The kernel keeps a segment (System V) until somebody removes it, and what lies in
//! `/dev/shm` likewise. A Postgres that is killed, rather than ended, cannot; the next one on the same data would, and for a run that
//! is over there is none. What it shares besides lies in its data folder, see [`super::postgres`].

use std::path::{Path, PathBuf};

/// Removes the segments that the databases below a run's private folder made and nobody uses any more.
pub fn remove_unused(folder: &Path) {
    let table = table();
    for Shared { segment, maker, files } in all_below(folder) {
        if is_unused(&table, segment, maker) {
            for file in files {
                let _ = std::fs::remove_file(file);
            }
            // SAFETY: the call takes the segment by its number; where it is gone or somebody else's, it fails and nothing changes.
            unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

/// What one database shares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// The segment's number.
    segment: i32,
    /// The process that made it.
    maker: i32,
    /// The files in `/dev/shm` that the segment leads to, if it leads to any.
    files: Vec<PathBuf>,
}

/// What the databases below a run's private folder share, as far as they have written it down by now.
pub fn all_below(folder: &Path) -> Vec<Shared> {
    let noted = notes_below(folder).into_iter().filter_map(|notes| noted(&std::fs::read_to_string(notes).ok()?));
    let shared = |(segment, maker)| {
        let control = controlled_by(segment, maker);
        let controlled = control.as_ref().and_then(|file| std::fs::read(file).ok());
        let files = controlled.iter().flat_map(|bytes| listed(bytes)).map(of_number).chain(control.clone()).collect();
        Shared { segment, maker, files }
    };
    noted.map(shared).collect()
}

impl Shared {
    /// What of it is still on this machine, whether somebody uses it or not, for people.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if users(&table(), self.segment, self.maker).is_some() {
            left.push(format!("shared memory {} of process {}", self.segment, self.maker));
        }
        left.extend(self.files.iter().filter(|file| file.exists()).map(|file| format!("file {}", file.display())));
        left
    }
}

/// The kernel's table of segments.
fn table() -> String {
    std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default()
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
    own.then(|| number(24).map(of_number))?
}

/// Where Postgres keeps what it shares under a number.
fn of_number(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/shm/PostgreSQL.{number}"))
}

/// The numbers of the other files that a control file lists: behind a magic number, how many entries are in use and how many there
/// is room for, each entry begins with its number and how many use it. An odd number lies in the segment itself.
fn listed(control: &[u8]) -> Vec<u32> {
    const MAGIC: u32 = 0x9a50_3d32;
    const HEADER: usize = 16;
    let number = |from: usize| control.get(from..from + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (Some(MAGIC), Some(used), Some(room @ 1..)) = (number(0), number(4), number(8)) else { return Vec::new() };
    // Postgres' versions have entries of different lengths.
    let length = control.len().saturating_sub(HEADER) / room as usize;
    let entries = (0..used.min(room) as usize).map(|entry| HEADER + entry * length);
    let in_use = entries.filter_map(|from| Some((number(from)?, number(from + 4)?))).filter(|(_, users)| *users > 0);
    in_use.map(|(number, _)| number).filter(|number| number % 2 == 0).collect()
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
    users(table, segment, maker) == Some(0)
}

/// How many are attached to a segment that this process made; none if the kernel's table does not have it.
fn users(table: &str, segment: i32, maker: i32) -> Option<i64> {
    table.lines().find_map(|line| {
        let fields: Vec<i64> = line.split_whitespace().map(|field| field.parse().unwrap_or(-1)).collect();
        // key, shmid, perms, size, cpid, lpid, nattch
        match fields.as_slice() {
            [_, id, _, _, cpid, _, users, ..] if (*id, *cpid) == (segment.into(), maker.into()) => Some(*users),
            _ => None,
        }
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
        // It lists a file, an entry that nobody uses, and one that lies in the segment.
        let (held, other) = (control - 2 - control % 2, control - 4 - control % 2);
        let held_file = of_number(held);
        let entry = |number: u32, users: u32| [number, users, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
        let head = [0x9a50_3d32, 3, 4, 0].map(u32::to_ne_bytes).concat();
        let entries = [entry(held, 2), entry(other, 0), entry(held + 1, 1), entry(other, 1)].concat();
        let listing = [head, entries].concat();
        assert_eq!(listed(&listing), [held]);
        assert_eq!((listed(&listing[4..]), listed(b"")), (Vec::new(), Vec::new()), "no control file");
        std::fs::write(&file, &listing).unwrap();
        std::fs::write(&held_file, "").unwrap();
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
        let shared = all_below(root.path());
        let [held_file, file] = [&held_file, &file].map(|file| format!("file {}", file.display()));
        let all = [format!("shared memory {segment} of process {maker}"), held_file, file];
        assert_eq!(shared.iter().flat_map(Shared::left).collect::<Vec<_>>(), all);
        remove_unused(root.path());
        assert_eq!(shared[0].left(), [] as [&str; 0]);
        assert!(!is_unused(&there(), segment, maker));
        assert_eq!(noted("12\n/data\n"), None, "it was killed before it had any");
    }

    #[test]
    fn a_segment_in_use_is_left_alone() {
        let table =
            "key shmid perms size cpid lpid nattch uid\n 10232873 32768 600 56 71 99 11 108\n 7 5 600 56 71 99 0 108\n";
        assert!(!is_unused(table, 32768, 71) && is_unused(table, 5, 71) && !is_unused(table, 5, 72));
    }
}
