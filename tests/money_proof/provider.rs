//! The oracle: a provider in a process of its own, and its journal of what it served.
//!
//! It follows the script and records the tokens that each attempt is billed for; prices are applied elsewhere. It is
//! never killed; when its standard input ends it waits for running requests and exits. Start reading in [`serve`]; the other side is [`Provider`].

use crate::dialect::Dialect;
use crate::script::{Act, Ask, End, SLOW, Tokens, UNLIMITED, UsageReport, is_late};
use crate::wire::{Head, read_head};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The variables that make this binary the provider.
pub const JOURNAL: &str = "TIERWAY_PROOF_JOURNAL";
pub const SEED: &str = "TIERWAY_PROOF_PROVIDER_SEED";
/// The dialect whose usage it writes by the convention of others, which is a fault.
const OTHER_WAY: &str = "TIERWAY_PROOF_OTHER_WAY";
/// How long a held answer waits for the gateway to disconnect; only a faulty gateway does not.
const HELD: Duration = Duration::from_secs(20);
/// How long a provider that goes on waits in the middle: longer than a client that leaves.
const LINGERS: Duration = Duration::from_millis(250);
const SLOW_FRAME: Duration = Duration::from_millis(10);
/// How late a late answer is begun.
const LATE: Duration = Duration::from_millis(60);
/// A connection that resets as soon as it is used passes for a stale one, on which nothing was done; one that
/// worked takes longer.
const AT_WORK: Duration = Duration::from_millis(120);

/// One attempt as the journal has it.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    pub tag: u64,
    /// By its place in [`DEPLOYMENTS`](crate::fixture::DEPLOYMENTS).
    pub deployment: usize,
    /// When the request had been read.
    pub at_ms: i64,
    /// What is billed.
    pub tokens: Tokens,
}

/// The provider's process.
pub struct Provider {
    child: Child,
    pub addr: SocketAddr,
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Provider {
    pub fn start(folder: &Path, seed: u64, other_way: Option<Dialect>) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .env(JOURNAL, folder.join("journal"))
            .env(SEED, seed.to_string())
            .env(OTHER_WAY, other_way.map_or("", Dialect::name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts again");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it says where it listens");
        Self { child, addr: line.trim().parse().expect("an address"), _stdout: stdout }
    }

    /// Lets it finish what is under way, and reads its journal.
    pub fn end(mut self, folder: &Path) -> Vec<Served> {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("it was started here").success(), "the provider failed");
        let journal = std::fs::read_to_string(folder.join("journal")).expect("it wrote one");
        journal.lines().map(read_line).collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(line: &str) -> Served {
    let numbers: Vec<i64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
    let [tag, deployment, at_ms, input, cached, output] = numbers[..] else { panic!("no line: {line}") };
    let [tag, input, cached, output] = [tag, input, cached, output].map(i64::unsigned_abs);
    Served { tag, deployment: deployment as usize, at_ms, tokens: Tokens { input, cached, output } }
}

/// What all connections of the provider share.
struct ProviderState {
    seed: u64,
    /// The dialect whose usage is written wrongly.
    other_way: String,
    journal: Mutex<File>,
    /// How often each request has come.
    seen: Mutex<HashMap<u64, u64>>,
    under_way: Mutex<u64>,
    idle: Condvar,
}

impl ProviderState {
    /// The number of another attempt of this request, from 1.
    fn attempt(&self, tag: u64) -> u64 {
        let mut seen = self.seen.lock().expect("no thread panicked");
        let number = seen.entry(tag).or_default();
        *number += 1;
        *number
    }
}

/// Serves until standard input ends, as the process of its own.
pub fn serve(journal: &Path, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let journal = Mutex::new(File::create(journal).expect("the folder can be written"));
    let (seen, under_way, idle) = (Mutex::default(), Mutex::new(0), Condvar::new());
    let other_way = std::env::var(OTHER_WAY).unwrap_or_default();
    let fixture = Arc::new(ProviderState { seed, other_way, journal, seen, under_way, idle });
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let (shared, handle) = (fixture.clone(), runtime.handle().clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (fixture, handle) = (shared.clone(), handle.clone());
            std::thread::spawn(move || {
                let _entered = handle.enter();
                let _ = stream.set_nodelay(true);
                let mut reader = BufReader::new(stream);
                while exchange(&fixture, &mut reader).is_some() {}
            });
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
    let busy = fixture.under_way.lock().expect("no thread panicked");
    let ended = fixture.idle.wait_timeout_while(busy, 2 * HELD, |busy| *busy > 0).expect("no thread panicked");
    assert!(!ended.1.timed_out(), "an exchange never ends");
}

/// One exchange; `None` when the connection is over.
fn exchange(fixture: &ProviderState, reader: &mut BufReader<TcpStream>) -> Option<()> {
    let Head { start, length, .. } = read_head(reader)?;
    let mut body = vec![0; length?];
    *fixture.under_way.lock().expect("no thread panicked") += 1;
    let done = reader.read_exact(&mut body).ok().and_then(|()| answer(fixture, reader, &start, &body));
    *fixture.under_way.lock().expect("no thread panicked") -= 1;
    fixture.idle.notify_all();
    done
}

fn answer(fixture: &ProviderState, reader: &mut BufReader<TcpStream>, start: &str, body: &[u8]) -> Option<()> {
    let at_ms = crate::now_ms();
    let asked: serde_json::Value = serde_json::from_slice(body).expect("the gateway sends JSON");
    let dialect = Dialect::of(start);
    let other_way = fixture.other_way == dialect.name();
    let tag = dialect.tag(&asked).expect("a tag");
    let deployment = crate::fixture::deployment(start, asked["model"].as_str().expect("a model"));
    let number = fixture.attempt(tag);
    let ask = Ask::of(fixture.seed, tag);
    let at_a = start.starts_with("POST /a/");
    let most = ceiling(&asked, dialect, at_a);
    let mut tokens = Tokens::of(fixture.seed, tag, number, body.len(), most);
    let goes_on = !at_a;
    let act = Act::of(fixture.seed, &ask, number, at_a != ask.large);
    // What goes on when it is left is long, so that most of it comes when nobody is left.
    if tag >= SLOW || goes_on && act.is_held() {
        tokens.output = most;
    }
    let record = |tokens: Tokens| {
        let Tokens { input, cached, output } = tokens;
        let line = format!("{tag} {deployment} {at_ms} {input} {cached} {output}\n");
        fixture.journal.lock().expect("no thread panicked").write_all(line.as_bytes()).expect("the disk has room");
    };
    let stream = asked["stream"].as_bool() == Some(true);
    if is_late(fixture.seed, &ask, number) {
        std::thread::sleep(LATE);
    }
    match act {
        Act::Error(status) => write(reader, &whole(&format!("{status} No"), "application/json", dialect.error())),
        Act::Garbage => {
            record(tokens);
            write(reader, &whole("200 OK", "text/html", "<html>"))
        }
        Act::Gone => reset(reader),
        Act::Silent => {
            record(tokens);
            until_left(reader)
        }
        Act::Answer { report, end } if stream => {
            let mut streamed = Streamed { reader, dialect, other_way, tokens, written: 0, goes_on };
            let done = streamed.run(report, end);
            let output = streamed.written;
            record(Tokens { output, ..tokens });
            done
        }
        Act::Answer { report, end } => {
            record(tokens);
            let usage = (report != UsageReport::Missing).then(|| dialect.usage(report, tokens, other_way));
            let text = whole("200 OK", "application/json", &dialect.whole(tokens.output, usage.as_deref()));
            match end {
                End::Whole | End::Slow => write(reader, &text),
                End::Broken { rst, percent } => {
                    // After its head: one that ends sooner passes for a connection that was stale.
                    let head = text.find("\r\n\r\n").expect("it has a head") + 4;
                    write(reader, &text[..head + (text.len() - head) * percent as usize / 100])?;
                    if rst {
                        std::thread::sleep(AT_WORK);
                        return reset(reader);
                    }
                    None
                }
                End::Held { .. } if goes_on => {
                    std::thread::sleep(LINGERS);
                    write(reader, &text)
                }
                End::Held { .. } => until_left(reader),
            }
        }
    }
}

/// The ceiling that the provider reads: each by its own name alone, and zero is none.
fn ceiling(asked: &serde_json::Value, dialect: Dialect, at_a: bool) -> u64 {
    let read = asked[dialect.ceiling_name(at_a)].as_u64();
    read.filter(|most| *most > 0).unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// A stream on its way.
struct Streamed<'a> {
    reader: &'a mut BufReader<TcpStream>,
    dialect: Dialect,
    other_way: bool,
    tokens: Tokens,
    /// Frames with a token that were written.
    written: u64,
    /// Whether it writes on when nobody reads, and bills all of it: the second provider does.
    goes_on: bool,
}

impl Streamed<'_> {
    fn run(&mut self, report: UsageReport, end: End) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        write(self.reader, head)?;
        self.frames(self.dialect.opening(report, self.tokens, self.other_way))?;
        let stops_at = match end {
            End::Held { .. } if self.goes_on => self.tokens.output,
            End::Broken { percent, .. } | End::Held { percent } => self.tokens.output * percent / 100,
            End::Whole | End::Slow => self.tokens.output,
        };
        let lingers_at = match end {
            // Soon after its first token.
            End::Held { percent } if self.goes_on => Some(1 + self.tokens.output * percent / 1_000),
            _ => None,
        };
        for number in 0..stops_at {
            if end == End::Slow {
                std::thread::sleep(SLOW_FRAME);
            }
            if lingers_at == Some(number) {
                std::thread::sleep(LINGERS);
            }
            let so_far = Tokens { output: self.written + 1, ..self.tokens };
            let usage = (report == UsageReport::Always).then(|| self.usage(report, so_far));
            self.frame(&self.dialect.token(usage.as_deref()))?;
            self.written += 1;
        }
        match end {
            End::Broken { rst: true, .. } => {
                std::thread::sleep(AT_WORK);
                return reset(self.reader);
            }
            End::Broken { .. } => return None,
            End::Held { .. } if !self.goes_on => return until_left(self.reader),
            End::Held { .. } | End::Whole | End::Slow => {}
        }
        let Tokens { input, output, .. } = self.tokens;
        let mut usages = Vec::new();
        if report == UsageReport::Twice {
            usages.push(self.usage(report, Tokens { input: input / 2, cached: 0, output: output / 2 }));
        }
        if !matches!(report, UsageReport::Missing | UsageReport::Late) {
            usages.push(self.usage(report, self.tokens));
        }
        let late = (report == UsageReport::Late).then(|| self.usage(report, self.tokens));
        self.frames(self.dialect.closing(&usages, late.as_deref()))?;
        write(self.reader, "0\r\n\r\n")
    }

    fn usage(&self, report: UsageReport, tokens: Tokens) -> String {
        self.dialect.usage(report, tokens, self.other_way)
    }

    fn frames(&mut self, frames: Vec<String>) -> Option<()> {
        frames.iter().try_for_each(|frame| self.frame(frame))
    }

    fn frame(&mut self, frame: &str) -> Option<()> {
        let written = write(self.reader, &format!("{:x}\r\n{frame}\r\n", frame.len()));
        if self.goes_on { Some(()) } else { written }
    }
}

fn whole(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn write(reader: &mut BufReader<TcpStream>, text: &str) -> Option<()> {
    reader.get_mut().write_all(text.as_bytes()).ok()
}

/// Ends the connection by RST.
fn reset(reader: &mut BufReader<TcpStream>) -> Option<()> {
    let stream = reader.get_ref().try_clone().ok()?;
    stream.set_nonblocking(true).ok()?;
    tokio::net::TcpStream::from_std(stream).ok()?.set_zero_linger().ok()?;
    None
}

/// Waits until the gateway has closed the connection.
fn until_left(reader: &mut BufReader<TcpStream>) -> Option<()> {
    reader.get_ref().set_read_timeout(Some(HELD)).ok()?;
    while reader.read(&mut [0; 64]).ok()? > 0 {}
    None
}
