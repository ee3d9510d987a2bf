//! Logs that cannot be written: whatever stdout and stderr are, the gateway serves, and money is booked.

use crate::budgets::{BILL, Provider, config};
use crate::process::{Client, Killed, PATIENCE, Running, tierway};
use crate::receipts::Place;
use std::fs::File;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Paid requests, each of which writes several lines.
const PAID: i64 = 100;

/// A gateway whose output nobody reads: where it listens is known beforehand.
struct Unheard {
    child: Killed,
    socket: PathBuf,
}

impl Unheard {
    fn serve(place: &Place, provider: &Provider, stdout: Stdio, stderr: Stdio) -> Self {
        let socket = place.folder().join("socket");
        let mut command = tierway(place.folder(), &["serve"]);
        let config = config(provider)
            .replace("127.0.0.1:0", &format!("unix:{}", socket.display()))
            .replace(r#"log = "error""#, r#"log = "debug""#);
        std::fs::write(place.folder().join("tierway.toml"), config).expect("the folder can be written");
        let child = command.stdout(stdout).stderr(stderr).spawn().expect("the binary starts");
        Self { child: Killed(child), socket }
    }

    fn client(&mut self, case: &str) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(client) = Client::connect_unix(&self.socket) {
                return client;
            }
            let ended = self.child.0.try_wait().expect("it was started here");
            assert!(ended.is_none() && Instant::now() < deadline, "{case}: it does not serve: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn stop(mut self) -> bool {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there").success());
        self.child.0.wait().expect("it was started here").success()
    }
}

/// Writes to `pipe` until it takes no more.
fn fill(mut pipe: &PipeWriter) {
    rustix::io::ioctl_fionbio(pipe, true).expect("a pipe can be made not to block");
    let bytes = [b'.'; 4096];
    while pipe.write(&bytes).is_ok() {}
    while pipe.write(&bytes[..1]).is_ok() {}
    rustix::io::ioctl_fionbio(pipe, false).expect("a pipe can be made to block");
}

fn spent(database: &Path) -> (i64, i64) {
    let look = rusqlite::Connection::open(database).expect("it is there");
    let number = |sql| look.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("it is read");
    (number("SELECT count(*) FROM receipts"), number("SELECT sum(spent_nanousd) FROM budgets"))
}

#[test]
fn output_that_nobody_reads_or_that_cannot_be_written_stops_nothing() {
    for case in ["a full pipe", "a closed pipe", "/dev/full"] {
        let (place, provider) = (Place::new(), Provider::start());
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        let full = || File::options().write(true).open("/dev/full").expect("Linux has it");
        let (stdout, stderr): (Stdio, Stdio) = match case {
            "/dev/full" => (full().into(), full().into()),
            _ => (writer.try_clone().expect("it is open").into(), writer.try_clone().expect("it is open").into()),
        };
        fill(&writer);
        let reader = (case == "a full pipe").then_some(reader);
        let mut gateway = Unheard::serve(&place, &provider, stdout, stderr);
        let mut client = gateway.client(case);
        for _ in 0..PAID {
            assert_eq!(client.chat("m").expect("it answers").status, 200, "{case}");
            assert_eq!(client.chat_by("tw_wrong", "m").expect("it answers").status, 401, "{case}");
        }
        let metrics = client.send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").expect("it answers").body;
        let lost = metrics.lines().find_map(|line| line.strip_prefix("tierway_log_lines_dropped_total ")?.parse().ok());
        let lost: u64 = lost.expect("the metric is there");
        // A stalled pipe is only known to lose lines once as many wait as may.
        assert!((lost > 0) == (case != "a full pipe"), "{case}: {lost} lines were lost");
        assert!(gateway.stop(), "{case}: it stops in good order");
        assert_eq!(spent(&place.database()), (PAID, PAID * BILL), "{case}");
        drop(reader);
    }
}

/// Log and store on one small disk, which is the gateway's alone: mounted in a namespace of its own.
#[test]
fn a_log_leaves_the_last_of_its_disk_to_the_store() {
    const SPARED: u64 = 8;
    let (place, provider) = (Place::new(), Provider::start());
    let disk = place.folder().join("disk");
    std::fs::create_dir(&disk).expect("the folder can be written");
    if !Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(&disk)
        .status()
        .is_ok_and(|s| s.success())
    {
        return println!("not tried: this system lets nobody mount a file system of their own");
    }
    // 32 MiB, of which a quarter is spared; little more than that is free.
    let script = format!(
        "mount -t tmpfs -o size=32m tmpfs disk && cp tierway.toml disk && cd disk && \
         head -c 24500000 /dev/zero >ballast && exec {} serve 2>log",
        env!("CARGO_BIN_EXE_tierway")
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).current_dir(place.folder()).env_clear();
    command
        .env("APP_KEY", crate::process::KEY)
        .env("TIERWAY__TELEMETRY__METRICS", "open")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let config = config(&provider).replace(r#"log = "error""#, r#"log = "debug""#).replace("0.04", "1");
    std::fs::write(place.folder().join("tierway.toml"), config).expect("the folder can be written");
    let gateway = Running::hearing(command, |_| true);
    let seen = PathBuf::from(format!("/proc/{}/root{}", gateway.pid(), disk.display()));
    let mut client = Client::connect(gateway.addr).expect("it listens");
    let mut paid = 0;
    let lost = || !gateway.ask("/metrics").1.contains("tierway_log_lines_dropped_total 0\n");
    let deadline = Instant::now() + PATIENCE;
    while !lost() || paid < PAID {
        assert!(Instant::now() < deadline, "{paid} requests, and the log still grows");
        assert_eq!(client.chat("m").expect("it answers").status, 200, "{paid}");
        paid += 1;
    }
    let logged = seen.join("log").metadata().expect("it is there").len();
    for _ in 0..PAID {
        assert_eq!(client.chat("m").expect("it answers").status, 200, "{paid}");
        paid += 1;
    }
    assert_eq!(seen.join("log").metadata().expect("it is there").len(), logged, "it grows no more");
    assert!(logged < SPARED << 20);
    assert_eq!(gateway.ask("/readyz").0, 200);
    // Read while it runs: the disk ends with the gateway.
    let metrics = gateway.ask("/metrics").1;
    assert!(metrics.contains("tierway_ledger_healthy 1\n"), "{metrics}");
    assert_eq!(provider.billed(), paid * BILL);
    gateway.stop();
}
