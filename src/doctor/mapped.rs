//! The libraries in this process, as the kernel lists them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The files that are mapped into this process and whose names begin so, each once.
pub fn files(name: &str) -> Vec<PathBuf> {
    among(&fs::read_to_string("/proc/self/maps").unwrap_or_default(), name)
}

fn among(maps: &str, name: &str) -> Vec<PathBuf> {
    // Address, rights, offset, device and inode come before the path, which may hold blanks itself.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    let named = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    paths.filter(named).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_listed_once_and_two_copies_of_it_twice() {
        let maps = "7f0000000000-7f0000001000 r--p 00000000 fe:00 12   /opt/a b/libnccl.so.2\n\
                    7f0000001000-7f0000002000 r-xp 00001000 fe:00 12   /opt/a b/libnccl.so.2\n\
                    7f0000003000-7f0000004000 r--p 00000000 fe:00 14   /usr/lib/libnccl.so.2.18.5\n\
                    7f0000005000-7f0000006000 r--p 00000000 fe:00 15   /usr/lib/libc.so.6\n\
                    7f0000007000-7f0000008000 rw-p 00000000 00:00 0    [heap]\n";
        let found = among(maps, "libnccl.so");
        assert_eq!(found, [PathBuf::from("/opt/a b/libnccl.so.2"), PathBuf::from("/usr/lib/libnccl.so.2.18.5")]);
    }
}
