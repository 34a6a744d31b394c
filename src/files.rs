//! Reading and writing of certificates and keys: bounded, atomic, and private where it must be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use tracing::warn;

use crate::error::StartError;

/// No chain or key comes near this size; a wrong path (a disk, a log) should fail fast.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a whole file of reasonable size.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_all(File::open(path)?)
}

/// Reads the file of a private key or another secret, and refuses one that any user of the machine can read.
pub(crate) fn read_private(path: &Path, remedy: &str) -> Result<Vec<u8>, StartError> {
    let failed = |error| StartError::file("read", path, &error, remedy);
    let file = File::open(path).map_err(failed)?;
    refuse_open_to_all(path, &file.metadata().map_err(failed)?)?;
    read_all(file).map_err(failed)
}

fn read_all(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "over 1 MiB, which no certificate or key is"));
    }
    Ok(content)
}

#[cfg(unix)]
fn refuse_open_to_all(path: &Path, metadata: &fs::Metadata) -> Result<(), StartError> {
    use std::os::unix::fs::MetadataExt;
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o007 != 0 {
        return Err(StartError::new(format_args!(
            "{0} is open to every user of this machine (mode {mode:04o}), though what it holds is secret; run 'chmod 600 {0}', \
             and replace the secret if others may have read it",
            path.display()
        )));
    }
    if metadata.is_file() && is_needlessly_open(mode, metadata.uid(), rustix::process::geteuid().as_raw()) {
        warn!(path = %path.display(), mode = format_args!("{mode:04o}"), "a file that holds a secret is open to its group");
    }
    Ok(())
}

/// Whether the group of a secret's file may do more than it must. The file of another owner can be read by `user` as a member
/// of its group alone, and is safe from being overwritten: /etc/wigwag of the package is such.
#[cfg(unix)]
fn is_needlessly_open(mode: u32, owner: u32, user: u32) -> bool {
    let (group, reads) = (mode & 0o070, 0o040);
    group != 0 && (owner == user || group != reads)
}

#[cfg(not(unix))]
fn refuse_open_to_all(_: &Path, _: &fs::Metadata) -> Result<(), StartError> {
    Ok(())
}

/// Replaces a file at once, so that no reader ever sees half of it. `private` makes it its owner's alone.
pub(crate) fn write(path: &Path, content: &[u8], private: bool) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // A process that died here once may have had the same number.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = create(&temporary, private).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The first error is the one to tell; what is left over is removed by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn create(path: &Path, private: bool) -> io::Result<File> {
    with_mode(OpenOptions::new().write(true).create_new(true), private).open(path)
}

/// Opens a file to be locked, made if missing. Its owner's alone: whoever can open it can hold the lock.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    with_mode(OpenOptions::new().append(true).create(true), true).open(path)
}

#[cfg(unix)]
fn with_mode(options: &mut OpenOptions, private: bool) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(if private { 0o600 } else { 0o644 })
}

#[cfg(not(unix))]
fn with_mode(options: &mut OpenOptions, _private: bool) -> &mut OpenOptions {
    options
}

/// Makes a directory, and those above it, its owner's alone; one that is there is left as it is.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_read_the_secret_of_another_owner_and_no_more() {
        const ROOT: u32 = 0;
        const SERVER: u32 = 998;
        for (mode, owner, open) in [
            (0o600, SERVER, false),
            (0o640, SERVER, true),
            (0o640, ROOT, false),
            (0o440, ROOT, false),
            (0o660, ROOT, true),
            (0o650, ROOT, true),
        ] {
            assert_eq!(is_needlessly_open(mode, owner, SERVER), open, "{mode:04o} of {owner}");
        }
    }
}
