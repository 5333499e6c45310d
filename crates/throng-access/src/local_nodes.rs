//! Nodes on this machine and their data directories, so that commands find their admin tokens.
//!
//! `throng up` writes `nodes/<host>_<port>.json` below the user's state folder, with the path of the
//! data directory and nothing else. A token that is found in this way is sent only to the node that runs
//! on this data directory now: another program may listen at the same address after the node ended.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use throng_model::Secret;

use crate::access::{ADDRESS_FILE, AccessError, admin_token};

/// A node on this machine cannot be found or registered.
#[derive(Debug, thiserror::Error)]
pub enum LocalNodeError {
    /// No node holds the lock of the data directory.
    #[error("no node runs on {}: start one with `throng up --dir`, or use --url", dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
    },
    /// The admin token belongs to another user.
    #[error("only the user who started the node can read its token in {}", dir.display())]
    Token {
        /// The data directory.
        dir: PathBuf,
        /// Why it cannot be read.
        source: AccessError,
    },
    /// A file or folder of the registration.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, such as `write`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The path of the data directory is not UTF-8.
    #[error("the path of the data directory is not UTF-8")]
    Path(#[source] serde_json::Error),
}

type Result<T> = std::result::Result<T, LocalNodeError>;

/// Scheme, host and port of a URL.
fn parse_url(url: &str) -> Option<(&str, &str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((scheme, host, port.parse().ok()?)),
        _ => Some((scheme, authority, default)),
    }
}

fn address(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether the host of a URL is a loopback address.
pub fn is_loopback(url: &str) -> bool {
    parse_url(url).and_then(|(_, host, _)| address(host)).is_some_and(|ip| ip.is_loopback())
}

/// `$XDG_STATE_HOME/throng/nodes`, or the same below `~/.local/state`.
fn nodes_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("throng/nodes"))
}

fn file_of(ip: IpAddr, port: u16) -> Option<PathBuf> {
    // Colons of IPv6 are not allowed in file names everywhere.
    let host = ip.to_string().replace(':', "-");
    Some(nodes_dir()?.join(format!("{host}_{port}.json")))
}

/// The contents of a registration file.
#[derive(Debug, Serialize, Deserialize)]
struct RegisteredNode {
    data_dir: PathBuf,
}

/// The registration file of a running node; removed when dropped.
#[derive(Debug)]
pub struct Registration(Option<PathBuf>);

impl Registration {
    /// Records the data directory of the node that listens at a URL. A failure does not end the node:
    /// commands still find it by `--dir`.
    pub fn new(url: &str, data_dir: &Path) -> Self {
        match write(url, data_dir) {
            Ok(path) => Self(path),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to register the node for commands on this machine"
                );
                Self(None)
            }
        }
    }
}

fn write(url: &str, data_dir: &Path) -> Result<Option<PathBuf>> {
    let Some((_, host, port)) = parse_url(url) else { return Ok(None) };
    let Some(ip) = address(host) else { return Ok(None) };
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let Some(path) = file_of(ip, port).filter(|_| ip.is_loopback()) else { return Ok(None) };
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| LocalNodeError::Io { doing, path, source }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("create the folder", folder))?;
    }
    let data_dir = std::fs::canonicalize(data_dir).map_err(failed("find", data_dir))?;
    let node = RegisteredNode { data_dir };
    let text = serde_json::to_string(&node).map_err(LocalNodeError::Path)?;
    let temporary = path.with_extension("new");
    // The umask of the process keeps other users from reading it.
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(failed("write", &path))?;
    Ok(Some(path))
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // A file that stays is harmless: its token is not sent while no node runs on the directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The URL of the node that runs on a data directory.
///
/// # Errors
/// [`LocalNodeError::NotRunning`] if no node runs on it.
pub fn url_of(dir: &Path) -> Result<String> {
    let path = dir.join(ADDRESS_FILE);
    let read = throng_fs::read_to_string(&path).ok().filter(|_| is_running(dir));
    let url = read.ok_or_else(|| LocalNodeError::NotRunning { dir: dir.to_owned() })?;
    Ok(url.trim().replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:"))
}

/// Whether a node runs on the data directory: it holds the lock.
fn is_running(dir: &Path) -> bool {
    let Ok(lock) = throng_fs::open(&dir.join("lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

/// Whether a URL is the address of the node that runs on a data directory. While it runs, no other
/// program can listen there, so a token that is sent there reaches that node.
fn listens_at(dir: &Path, url: &str) -> bool {
    let Ok(own) = url_of(dir) else { return false };
    let (Some((_, host, port)), Some((_, own_host, own_port))) = (parse_url(url), parse_url(&own))
    else {
        return false;
    };
    let same = match (address(host), address(own_host)) {
        (Some(ip), Some(own)) => ip == own,
        _ => false,
    };
    same && port == own_port
}

/// The admin token of a data directory, if its node listens at the URL.
///
/// # Errors
/// [`LocalNodeError::Token`] if the token cannot be read.
pub fn token_of(dir: &Path, url: &str) -> Result<Option<Secret>> {
    if !listens_at(dir, url) {
        return Ok(None);
    }
    admin_token(dir).map_err(|source| LocalNodeError::Token { dir: dir.to_owned(), source })
}

/// The admin token of the node that listens at a loopback URL, if this user started it.
pub fn token_at(url: &str) -> Option<Secret> {
    let (_, host, port) = parse_url(url)?;
    let ip = address(host).filter(IpAddr::is_loopback)?;
    let text = throng_fs::read_to_string(&file_of(ip, port)?).ok()?;
    let registered: RegisteredNode = serde_json::from_str(&text).ok()?;
    token_of(&registered.data_dir, url).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        assert_eq!(parse_url("http://127.0.0.1:7077/x"), Some(("http", "127.0.0.1", 7077)));
        assert_eq!(parse_url("https://[::1]"), Some(("https", "[::1]", 443)));
        assert_eq!(parse_url("https://[::1]:80"), Some(("https", "[::1]", 80)));
        assert_eq!(parse_url("ftp://a"), None);
        for local in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:7"] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in ["http://localhost.evil.example", "http://10.0.0.1", "http://127.0.0.1.x"] {
            assert!(!is_loopback(remote), "{remote}");
        }
    }

    #[test]
    fn a_token_goes_only_to_the_node_that_runs_on_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(ADDRESS_FILE, "http://0.0.0.0:7077\n");
        write("admin.token", "throng_1\n");
        write("lock", "1");
        let url = "http://127.0.0.1:7077";
        assert_eq!(token_of(dir.path(), url).unwrap(), None, "no node holds the lock");
        let lock = std::fs::File::open(dir.path().join("lock")).unwrap();
        lock.try_lock().unwrap();
        assert_eq!(token_of(dir.path(), url).unwrap(), Some(Secret::new("throng_1")));
        for other in ["http://127.0.0.1:7078", "http://10.0.0.1:7077", "http://evil.example:7077"] {
            assert_eq!(token_of(dir.path(), other).unwrap(), None, "{other}");
        }
    }
}
