//! A disk of a few megabytes that can really be full.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A tmpfs in a mount namespace of its own, so that nothing is left on the machine: it goes with the process that holds it.
pub struct SmallDisk {
    holder: Child,
    _mount: TempDir,
    root: PathBuf,
}

impl SmallDisk {
    /// # Errors
    /// Why this machine gives none.
    pub fn mount(bytes: u64) -> Result<Self, String> {
        // As root, or else in a user namespace of one's own.
        Self::mount_with("-m", bytes).or_else(|_| Self::mount_with("-rm", bytes))
    }

    fn mount_with(namespaces: &str, bytes: u64) -> Result<Self, String> {
        let mount = TempDir::new().expect("a temporary folder");
        let mut holder = Command::new("unshare")
            .arg(namespaces)
            .args(["sh", "-c", r#"mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat"#, "sh"])
            .arg(bytes.to_string())
            .arg(mount.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let _ = BufReader::new(holder.stdout.take().expect("stdout is piped")).read_line(&mut said);
        if said.trim() != "mounted" {
            let _ = holder.kill();
            let _ = holder.stderr.take().expect("stderr is piped").read_to_string(&mut said);
            let _ = holder.wait();
            return Err(format!("no small file system can be mounted here: {}", said.trim()));
        }
        // The holder's view of the file system, from outside of its namespace.
        let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), mount.path().display()));
        Ok(Self { holder, _mount: mount, root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file system lies for a process within its namespace, such as [`Self::inside`] starts.
    #[allow(dead_code, reason = "only the fault harness, which shares this file, needs it")]
    pub fn mounted_at(&self) -> &Path {
        self._mount.path()
    }

    /// What follows as arguments runs within the namespace, for who resolves links: `root` is one.
    #[allow(dead_code, reason = "only the fault harness, which shares this file, needs it")]
    pub fn inside(&self) -> Command {
        let holder = self.holder.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &holder, "-m"]);
        let user = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
        if user("self") != user(&holder) {
            command.args(["-U", "--preserve-credentials"]);
        }
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Somebody else's file, which takes the room; dropped, it gives it back.
pub struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    pub fn new(root: &Path) -> Self {
        let path = root.join("filler");
        let file = File::create(&path).expect("the filler is creatable");
        Self { path, file }
    }

    /// Grows until only `leave` bytes are free.
    pub fn fill(&mut self, leave: u64) {
        while free_bytes(&self.path) > leave && self.file.write_all(&[0x55; 4096]).is_ok() {}
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub fn free_bytes(root: &Path) -> u64 {
    let stat = rustix::fs::statvfs(root).expect("a file system");
    stat.f_bavail * stat.f_frsize
}
