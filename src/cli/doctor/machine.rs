//! The verdicts about this machine: the clock, the files, the disk, the descriptors, the addresses.
//!
//! It changes nothing: what may be written is asked of the system, and an address is only tried.
//!
//! Start reading at [`rows`].

use super::row::DoctorRow;
use crate::cli::healthcheck::answers;
use crate::cli::store::StoreArgs;
use crate::cli::store_place::StorePlace;
use crate::cli::value_parsers::size_text;
use crate::config::{ConfigSource, ListenAddress, Snapshot, StoreLocation};
use crate::http::conn::listener::bind;
use rustix::fs::{Access, StatVfs, access, statvfs};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const GATEWAY: &str = "gateway";
/// More than this, and tokens, windows of budgets and certificates are judged wrongly, in seconds.
const CLOCK_OFF_S: i64 = 60;
/// Fewer open files are for programs that cannot have more: half of them are for clients.
const FEW_FILES: u64 = 4096;
/// Everyone may read, or write.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// The verdicts that need no network. `min_free` is the least free space, in bytes.
pub(super) fn rows(source: &ConfigSource, snapshot: &Snapshot, store: &StoreArgs, min_free: u64) -> Vec<DoctorRow> {
    let mut rows = vec![files_row(source, snapshot)];
    rows.push(store_row(snapshot, store));
    rows.extend(disk_row(snapshot, min_free));
    rows.push(descriptors_row(snapshot, getrlimit(Resource::Nofile).maximum));
    let server = &snapshot.server;
    rows.push(address_row("listen", &server.listen));
    rows.extend(server.admin_listen.as_ref().map(|address| address_row("admin_listen", address)));
    rows
}

/// The clock, by those of providers, each so many seconds ahead of this machine's. One that is off by itself is not this
/// machine's fault.
pub(super) fn clock_row(mut ahead_s: Vec<i64>) -> Option<DoctorRow> {
    ahead_s.sort_unstable();
    let ahead = *ahead_s.get(ahead_s.len() / 2)?;
    let said = match ahead {
        0.. => format!("{ahead} s behind the clocks of providers"),
        _ => format!("{} s ahead of the clocks of providers", -ahead),
    };
    if ahead.abs() <= CLOCK_OFF_S {
        return Some(DoctorRow::ok(GATEWAY, "clock", format!("within {CLOCK_OFF_S} s of the clocks of providers")));
    }
    let cure = "set this machine's clock, and have it kept (`timedatectl set-ntp true`)";
    Some(DoctorRow::broken(GATEWAY, "clock", said, cure))
}

/// Who may read what is secret, and change what counts.
fn files_row(source: &ConfigSource, snapshot: &Snapshot) -> DoctorRow {
    let config = match source {
        ConfigSource::File { path, .. } => Some(path.as_path()),
        ConfigSource::Demo => None,
    };
    let files: Vec<&Path> =
        config.into_iter().chain(snapshot.referenced_paths()).filter(|path| path.is_file()).collect();
    let open_to = |bits: u32| {
        let is_open = move |path: &&Path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & bits != 0);
        files.iter().copied().filter(is_open)
    };
    let written: Vec<String> = open_to(OTHERS_WRITE).map(|path| path.display().to_string()).collect();
    if !written.is_empty() {
        let names = written.join(" ");
        let said = format!("every user of this machine may change {names}");
        return DoctorRow::broken(GATEWAY, "permissions", said, format!("chmod o-w {names}"));
    }
    let secret = open_to(OTHERS_READ).filter(|path| Some(*path) != config && holds_secret(path));
    let read: Vec<String> = secret.map(|path| path.display().to_string()).collect();
    if !read.is_empty() {
        let names = read.join(" ");
        let said = format!("every user of this machine may read {names}");
        return DoctorRow::warning(GATEWAY, "permissions", said, format!("chmod o-r {names}"));
    }
    DoctorRow::ok(GATEWAY, "permissions", format!("{} files, none of them open to everyone", files.len()))
}

/// Certificates and prices are no secrets.
fn holds_secret(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let is_public = text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY");
    !is_public && path.extension().is_none_or(|extension| extension != "toml")
}

/// Whether the database is there, or can be made, and may be written.
fn store_row(snapshot: &Snapshot, store: &StoreArgs) -> DoctorRow {
    let keeps_nothing = matches!(snapshot.store.location, StoreLocation::Memory | StoreLocation::Temporary);
    if keeps_nothing && !store.is_named() {
        return DoctorRow::skipped(GATEWAY, "store", "nothing is kept beyond the process");
    }
    let place = match store.place_of(snapshot) {
        Ok(place) => place,
        Err(error) => {
            let said = error.message().trim_start_matches("error: ");
            return DoctorRow::broken(GATEWAY, "store", said, "name the database in [store] url");
        }
    };
    if let StorePlace::File(path) = &place {
        let folder = folder_of(path);
        let missing = !path.exists();
        let wanted = if missing { folder } else { path };
        let written = access(wanted, Access::WRITE_OK).map_err(io::Error::from);
        let written = if folder.is_dir() { written } else { Err(io::ErrorKind::NotADirectory.into()) };
        if let Err(error) = written {
            let said = format!("{} may not be written: {error}", wanted.display());
            let cure = "make the folder, let the gateway's user write to it, or name another place in [store] url";
            return DoctorRow::broken(GATEWAY, "store", said, cure);
        }
        if missing {
            return DoctorRow::ok(GATEWAY, "store", format!("{} is made by the first start", path.display()));
        }
    }
    match place.source() {
        Ok(_) => DoctorRow::ok(GATEWAY, "store", format!("{place} can be read")),
        Err(error) => {
            DoctorRow::broken(GATEWAY, "store", error.to_string(), "see to the database that [store] url names")
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How much room the database has.
fn disk_row(snapshot: &Snapshot, min_free: u64) -> Option<DoctorRow> {
    let StoreLocation::Sqlite(path) = &snapshot.store.location else { return None };
    let folder: PathBuf = folder_of(path).to_owned();
    let free = statvfs(&folder).ok().map(|disk: StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize))?;
    let said = format!("{} free for {}", size_text(free), path.display());
    if free >= min_free {
        return Some(DoctorRow::ok(GATEWAY, "disk", said));
    }
    let cure = format!(
        "make room, up to {}: receipts that cannot be written stop what budgets pay; [store] retention keeps fewer",
        size_text(min_free)
    );
    Some(DoctorRow::broken(GATEWAY, "disk", said, cure))
}

/// How many files a gateway may open: `serve` raises its own limit to `most`.
fn descriptors_row(snapshot: &Snapshot, most: Option<u64>) -> DoctorRow {
    let cure = "raise LimitNOFILE= of the service, or `ulimit -n`";
    let most = most.unwrap_or(u64::MAX);
    match snapshot.server.connections.max {
        // Each may need another one for its provider.
        Some(wanted) if most / 2 < wanted as u64 => {
            let said = format!("{most} open files, and max_connections = {wanted} needs twice as many");
            DoctorRow::broken(GATEWAY, "descriptors", said, cure)
        }
        _ if most < FEW_FILES => {
            let said = format!("{most} open files: {} connections of clients", most / 2);
            DoctorRow::warning(GATEWAY, "descriptors", said, cure)
        }
        _ if most == u64::MAX => DoctorRow::ok(GATEWAY, "descriptors", "as many open files as it wants"),
        _ => DoctorRow::ok(GATEWAY, "descriptors", format!("{most} open files")),
    }
}

/// Whether `address` can be listened at, or a gateway does.
fn address_row(check: &'static str, address: &ListenAddress) -> DoctorRow {
    // To try a socket's file would be to make it.
    if let Some(path) = address.socket_file() {
        let folder = folder_of(path);
        return match access(folder, Access::WRITE_OK) {
            Ok(()) => DoctorRow::ok(GATEWAY, check, format!("{address}: its folder may be written")),
            Err(error) => {
                let said = format!("{} may not be written: {}", folder.display(), io::Error::from(error));
                DoctorRow::broken(GATEWAY, check, said, "make the folder, or let the gateway's user write to it")
            }
        };
    }
    match bind(address) {
        Ok(_) => DoctorRow::ok(GATEWAY, check, format!("{address} is free")),
        Err(_) if answers(address) => DoctorRow::ok(GATEWAY, check, format!("a gateway serves {address}")),
        Err(error) => {
            let whole = error.to_string();
            let (said, cure) = whole.split_once(". ").unwrap_or((&whole, ""));
            DoctorRow::broken(GATEWAY, check, said, cure.trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::DoctorState;
    use super::*;
    use crate::config::{ProcessEnvironment, load};

    #[test]
    fn one_clock_that_is_off_alone_is_not_this_machines() {
        let check = |ahead: &[i64], expected: Option<DoctorState>| {
            assert_eq!(clock_row(ahead.to_vec()).map(|row| row.state), expected, "{ahead:?}");
        };
        check(&[], None);
        check(&[0], Some(DoctorState::Ok));
        check(&[-60, 60, 60], Some(DoctorState::Ok));
        check(&[61], Some(DoctorState::Broken));
        check(&[-3600, -3601, 0], Some(DoctorState::Broken));
        check(&[0, 86_400, 1], Some(DoctorState::Ok));
        assert!(clock_row(vec![-61]).is_some_and(|row| row.said.contains("61 s ahead")));
        assert!(clock_row(vec![90]).is_some_and(|row| row.said.contains("90 s behind")));
    }

    #[test]
    fn files_are_needed_twice_for_each_connection() {
        let check = |most: Option<u64>, max: &str, expected: DoctorState| {
            let text = format!(
                "server.listen = \"127.0.0.1:0\"\n{max}providers.p.protocol = \"sim\"\n\
                 models.m.deployments = [{{ provider = \"p\" }}]\n"
            );
            let source = ConfigSource::File { path: "tierway.toml".into(), text };
            let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(descriptors_row(&snapshot, most).state, expected, "{most:?} {max}");
        };
        check(None, "", DoctorState::Ok);
        check(Some(4096), "", DoctorState::Ok);
        check(Some(4095), "", DoctorState::Warning);
        check(Some(20_000), "server.max_connections = 10000\n", DoctorState::Ok);
        check(Some(19_999), "server.max_connections = 10000\n", DoctorState::Broken);
    }
}
