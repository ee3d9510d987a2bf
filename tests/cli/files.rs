//! The files of the binary: where its store lies, which command makes one, what the demo keeps, and the
//! configurations that the documentation shows.
//!
//! Every test has a folder of its own, for temporary files too: demos of other tests are not found.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A folder called `name` with [`CONFIG`] and `more`; the path of the configuration.
    fn folder(&self, name: &str, more: &str) -> PathBuf {
        std::fs::create_dir(self.path(name)).expect("the directory can be written");
        let config = self.path(name).join("tierway.toml");
        std::fs::write(&config, format!("{CONFIG}{more}")).expect("the directory can be written");
        config
    }

    /// The names of what is in it.
    fn content(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("it is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Serves one request with the configuration at `path`, named as it is given.
    #[track_caller]
    fn serve_once(&self, path: &str, store: Option<&str>) {
        let mut command = self.command(&["serve", "--config", path]);
        command.envs(store.map(|url| ("TIERWAY__STORE__URL", url)));
        let gateway = Running::start(command);
        assert_eq!(gateway.chat(APP_KEY, "acme/small").0, 200);
        assert_eq!(gateway.stop().0, Some(0));
    }

    /// A command with a folder for temporary files of its own.
    fn apart(&self, args: &[&str]) -> Command {
        let temporary = self.path("temporary");
        std::fs::create_dir_all(&temporary).expect("the directory can be written");
        let mut command = self.command(args);
        command.env("TMPDIR", temporary);
        command
    }

    /// The folders of demos, running or not.
    fn demos(&self) -> usize {
        let all = std::fs::read_dir(self.path("temporary")).expect("it is there").flatten();
        all.flat_map(|folder| std::fs::read_dir(folder.path()).expect("it is ours")).count()
    }
}

#[test]
fn a_relative_store_lies_beside_its_configuration() {
    let place = Place::empty();
    let config = place.folder("etc", "");
    place.serve_once("etc/tierway.toml", None);
    assert_eq!(place.content(), ["etc"]);
    assert!(place.path("etc/tierway.db").is_file());
    // Wherever a command is started, it reads the same one.
    let elsewhere = Place::empty();
    let usage = elsewhere.run(&["usage", "--csv", "--config", config.to_str().expect("it is text")]);
    check(&usage, 0, &[]);
    assert!(text(&usage.stdout).contains("\napp,1,"), "{usage:?}");
    assert!(elsewhere.content().is_empty());
    let linked = elsewhere.path("linked.toml");
    std::os::unix::fs::symlink(&config, &linked).expect("it can be linked");
    elsewhere.serve_once("./linked.toml", None);
    assert!(elsewhere.path("tierway.db").is_file(), "a link is a configuration of its own");
}

#[test]
fn a_whole_path_and_a_variable_mean_what_they_did() {
    let place = Place::empty();
    let whole = place.path("whole.db");
    place.folder("etc", &format!("[store]\nurl = \"sqlite:{}\"\n", whole.display()));
    place.serve_once("etc/tierway.toml", None);
    assert!(whole.is_file());
    place.serve_once("etc/tierway.toml", Some("sqlite:variable.db"));
    assert!(place.path("variable.db").is_file());
    let usage = place.run(&["usage", "--csv", "--store", "sqlite:variable.db"]);
    assert!(text(&usage.stdout).contains("\napp,1,"), "{usage:?}");
    assert_eq!(std::fs::read_dir(place.path("etc")).expect("it is there").count(), 1);
}

#[test]
fn a_store_at_the_old_place_is_refused_with_what_to_move() {
    let place = Place::empty();
    place.folder("etc", "[store]\nurl = \"sqlite:ledger.db\"\n");
    place.serve_once("etc/tierway.toml", Some("sqlite:ledger.db"));
    let before = place.content();
    let config = ["--config", "etc/tierway.toml"];
    let old = place.path("ledger.db").display().to_string();
    let said = ["move", &old, "to etc/ledger.db", "[store] url"];
    for command in [&["serve"][..], &["usage"], &["keys", "list"], &["keys", "create", "new", "--policy", "standard"]] {
        check(&place.run(&[command, &config].concat()), 69, &said);
    }
    check(&place.run(&[&["check"], &config[..]].concat()), 0, &["warning: store.url", "move"]);
    assert_eq!(place.content(), before);
    assert_eq!(std::fs::read_dir(place.path("etc")).expect("it is there").count(), 1);
    // A store of the same name elsewhere does not matter once there is one beside the configuration.
    std::fs::copy(place.path("ledger.db"), place.path("etc/ledger.db")).expect("it can be copied");
    place.serve_once("etc/tierway.toml", None);
    let usage = place.run(&[&["usage", "--csv"], &config[..]].concat());
    assert!(text(&usage.stdout).contains("\napp,2,"), "{usage:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    // Nobody makes files there.
    let place = Place::with(&format!("{CONFIG}[store]\nurl = \"sqlite:/proc/ledger.db\"\n"));
    for command in [&["serve"][..], &["migrate"], &["keys", "create", "new", "--policy", "standard"]] {
        check(
            &place.run(command),
            69,
            &["/proc/ledger.db", "nothing can be written in the directory /proc", "store.url"],
        );
    }
}

#[test]
fn a_command_that_reads_makes_no_store() {
    let place = Place::with(CONFIG);
    let id = "req_00000000000000000000000000000000";
    let reading: [&[&str]; 15] = [
        &["check"],
        &["config", "show"],
        &["explain", "--model", "acme/small"],
        &["explain", "--model", "acme/small", "--key", "app"],
        &["explain", "--request", id],
        &["keys", "list"],
        &["keys", "show", "app"],
        &["teams", "list"],
        &["credits", "list"],
        &["credits", "list", "--grants"],
        &["usage"],
        &["budgets"],
        &["cost"],
        &["status"],
        &["migrate", "--status"],
    ];
    for args in reading {
        let output = place.run(args);
        assert_eq!(place.content(), ["tierway.toml"], "{args:?}: {output:?}");
        assert!(!text(&output.stderr).contains("demo"), "{args:?}: {output:?}");
    }
    let keys = place.run(&["keys", "list"]);
    check(&keys, 0, &[]);
    let rows = format!("name,policy,hash\nnew,standard,sha256:{}\n", "a".repeat(64));
    std::fs::write(place.path("keys.csv"), rows).expect("the directory can be written");
    let import = place.run(&["keys", "import", "keys.csv", "--dry-run"]);
    check(&import, 0, &[]);
    assert!(text(&import.stdout).contains("1 keys can be imported"), "{import:?}");
    assert_eq!(place.content(), ["keys.csv", "tierway.toml"]);
    assert!(text(&keys.stdout).contains("app"), "{keys:?}");
    check(&place.run(&["usage"]), 69, &["there is no database at tierway.db"]);
}

#[test]
fn a_command_without_a_file_says_that_it_shows_the_demo() {
    let place = Place::empty();
    for args in [&["check"][..], &["config", "show"], &["config", "show", "--json"], &["explain", "--model", "auto"]] {
        check(&place.run(args), 0, &["there is no configuration file", "this shows the built-in demo"]);
    }
    for args in [&["usage"][..], &["keys", "list"], &["budgets"], &["explain", "--request", &"0".repeat(32)]] {
        let output = place.apart(args).output().expect("the binary starts");
        check(&output, 69, &["this shows the built-in demo", "no demo is running", "tierway serve", "--config"]);
        assert_eq!(text(&output.stderr).matches("note: ").count(), 1);
    }
    assert_eq!(place.content(), ["temporary"]);
    assert_eq!(place.demos(), 0);
}

/// A demo, its address and its key.
struct Demo {
    gateway: Running,
    key: String,
}

impl Demo {
    fn start(place: &Place) -> Self {
        Self::of(place.apart(&["serve"]))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let addr = line.trim().strip_prefix("listening on http://").expect("it serves").parse().expect("an address");
        let mut errors = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut said = String::new();
        // The banner is complete before the address is printed.
        while !said.contains("export OPENAI_API_KEY=") {
            assert_ne!(errors.read_line(&mut said).expect("stderr is text"), 0, "{said}");
        }
        let (_, key) = said.rsplit_once("export OPENAI_API_KEY=").expect("it was just found");
        let key = key.trim().to_owned();
        let stderr = std::thread::spawn(move || {
            errors.read_to_string(&mut said).expect("stderr is text");
            said
        });
        Self { gateway: Running { child, addr, _stdout: stdout, stderr }, key }
    }

    /// Asks once; the id of the request.
    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.gateway.addr).expect("it listens");
        let body = r#"{"model":"auto","messages":[{"role":"user","content":"Hi"}]}"#;
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers in text");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        id.expect("an answer has the id of its request").to_owned()
    }

    /// What `args` prints about this demo once it holds `wanted`.
    fn eventually_prints(&self, command: impl Fn() -> Command, wanted: &str) {
        self.gateway.eventually(wanted, |_| {
            let output = command().output().expect("the binary starts");
            text(&output.stdout).contains(wanted)
        });
    }
}

#[test]
fn the_demo_keeps_a_ledger_while_it_runs() {
    let place = Place::empty();
    let demo = Demo::start(&place);
    let id = demo.ask();
    demo.eventually_prints(|| place.apart(&["usage", "--csv"]), "\ndemo,1,");
    let explained = place.apart(&["explain", "--request", &id]).output().expect("the binary starts");
    check(&explained, 0, &["this shows the built-in demo"]);
    assert!(text(&explained.stdout).contains(&id), "{explained:?}");
    // From another folder there is only one demo that can be meant.
    let elsewhere = Place::empty();
    let from_there = || {
        let mut command = elsewhere.command(&["usage", "--csv"]);
        command.env("TMPDIR", place.path("temporary"));
        command
    };
    demo.eventually_prints(from_there, "\ndemo,1,");
    let made = place.apart(&["keys", "create", "mine", "--policy", "standard"]).output().expect("the binary starts");
    check(&made, 0, &[]);
    let key = text(&made.stdout).trim().to_owned();
    demo.gateway.eventually("the key to be known", |gateway| gateway.chat(&key, "default").0 == 200);
    assert_eq!(place.content(), ["temporary"]);
    let (code, said) = demo.gateway.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("tierway usage") && said.contains("tierway explain --request"), "{said}");
    assert_eq!(place.demos(), 0, "nothing is left of it");
    check(&place.apart(&["usage"]).output().expect("the binary starts"), 69, &["no demo is running"]);
}

#[test]
fn a_demo_is_private_and_leaves_nothing_however_it_ends() {
    let place = Place::empty();
    let mut command = place.apart(&["serve"]);
    command.env("TIERWAY__SERVER__LB_GRACE", "60s");
    let mut demo = Demo::of(command);
    let only = |folder: &Path| {
        let entries: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    };
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    let all = only(&place.path("temporary"));
    let folder = only(&all);
    assert_eq!((mode(&all), mode(&folder), mode(&folder.join("tierway.db"))), (0o700, 0o700, 0o600));
    // One that cannot start.
    let mut second = place.apart(&["serve"]);
    second.env("TIERWAY__SERVER__LISTEN", demo.gateway.addr.to_string());
    check(&second.output().expect("the binary starts"), 69, &[]);
    assert_eq!(place.demos(), 1);
    // One that is asked twice, and does not wait for its clients.
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = demo.gateway.child.try_wait().expect("it was started here") {
            break status;
        }
        assert!(Instant::now() < until, "it does not end");
        demo.gateway.signal("-TERM");
    };
    assert_eq!(status.code(), Some(1));
    assert_eq!(place.demos(), 0);
}

#[test]
fn demos_side_by_side_have_ledgers_of_their_own() {
    let place = Place::empty();
    let (one, mut other) = (Demo::start(&place), Demo::start(&place));
    one.ask();
    (0..2).for_each(|_| drop(other.ask()));
    let place_ref = &place;
    let usage_at = |demo: &Demo| {
        let address = demo.gateway.addr.to_string();
        move || {
            let mut command = place_ref.apart(&["usage", "--csv"]);
            command.env("TIERWAY__SERVER__LISTEN", &address);
            command
        }
    };
    one.eventually_prints(usage_at(&one), "\ndemo,1,");
    other.eventually_prints(usage_at(&other), "\ndemo,2,");
    let (first, second) = (one.gateway.addr.to_string(), other.gateway.addr.to_string());
    let unclear = place.apart(&["usage"]).output().expect("the binary starts");
    check(&unclear, 2, &["several demos are running", &first, &second, "TIERWAY__SERVER__LISTEN"]);
    // A demo that was killed is not found, and the next one removes what it left.
    other.gateway.signal("-KILL");
    other.gateway.child.wait().expect("it was started here");
    one.eventually_prints(|| place.apart(&["usage", "--csv"]), "\ndemo,1,");
    assert_eq!(place.demos(), 2);
    let next = Demo::start(&place);
    assert_eq!(place.demos(), 2);
    for demo in [one, next] {
        assert_eq!(demo.gateway.stop().0, Some(0));
    }
    assert_eq!(place.demos(), 0);
}

#[test]
fn a_configuration_written_in_two_steps_is_applied_whole() {
    let place = Place::with(CONFIG);
    let gateway = place.serve(&["serve"]);
    let metric = |gateway: &Running, line: &str| gateway.get("/metrics").1.contains(line);
    // Emptied, as a shell does that redirects into the file, then written.
    for model in ["acme/large", "acme/huge"] {
        place.write("");
        place.write(&CONFIG.replace("acme/small", model));
        gateway.eventually("the new model", |gateway| gateway.chat(APP_KEY, model).0 == 200);
    }
    assert!(metric(&gateway, "tierway_config_reloads_total{result=\"ok\"} 2\n"));
    assert!(!metric(&gateway, "tierway_config_reloads_total{result=\"failed\"} 1\n"));
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn a_file_of_another_language_is_said_to_be_one() {
    for (name, written) in [("YAML", "providers:\n  sim:\n    protocol: sim\n"), ("JSON", "{\"providers\": {}}\n")] {
        let place = Place::with(written);
        for args in [&["check"][..], &["serve"], &["usage"]] {
            let output = place.run(args);
            check(&output, 78, &[&format!("error: not TOML: the file looks like {name}"), "1 problem"]);
            assert!(text(&output.stderr).starts_with("error: not TOML"), "{output:?}");
        }
    }
    // As some editors save it: UTF-16.
    let place = Place::empty();
    let utf16: Vec<u8> = "\u{feff}[server]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(place.path("tierway.toml"), utf16).expect("the directory can be written");
    check(&place.run(&["check"]), 78, &["cannot read the configuration", "save it as UTF-8"]);
}

#[test]
fn a_syntax_error_comes_before_all_that_follows_from_it() {
    for first in ["server]", "[server", "listen = = 1", "listen: 1", "\"open", "{[server]"] {
        let place = Place::with(&format!("{first}\n[nonsense]\nx = 1\n"));
        for args in [&["check"][..], &["serve"], &["keys", "list"]] {
            let output = place.run(args);
            check(&output, 78, &["no provider is configured"]);
            let said = text(&output.stderr);
            let place_of_first = said.lines().find(|line| line.trim_start().starts_with("-->")).unwrap_or_default();
            assert!(place_of_first.contains("tierway.toml:1:"), "{first}: {said}");
        }
    }
}

/// The blocks of a page that may be configurations: those in TOML, and the files that its commands write.
fn blocks(page: &str) -> Vec<String> {
    let (mut found, mut block) = (Vec::new(), None::<(String, String)>);
    for line in page.lines() {
        match &mut block {
            Some((end, text)) if line == end => {
                found.push(std::mem::take(text));
                block = None;
            }
            Some((_, text)) => text.push_str(&format!("{line}\n")),
            None if line == "```toml" => block = Some(("```".to_owned(), String::new())),
            None if line.starts_with("cat > ") && line.ends_with("<<'END'") => {
                block = Some(("END".to_owned(), String::new()));
            }
            None => {}
        }
    }
    found
}

/// Every whole configuration of the tree, with the file it is in.
fn whole_configurations() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let files = |folder: &str, extension: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root.join(folder)).expect("it is there");
        let paths = entries.map(|entry| entry.expect("it is read").path());
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    };
    let pages = [files("", "md"), files("docs", "md")].concat();
    let mut all: Vec<(String, String)> = pages
        .iter()
        .flat_map(|page| blocks(&read(page)).into_iter().map(|block| (page.display().to_string(), block)))
        .collect();
    all.extend(files("config", "toml").iter().map(|path| (path.display().to_string(), read(path))));
    let is_whole = |text: &str| {
        let table: Result<toml::Table, _> = text.parse();
        table.is_ok_and(|table| table.contains_key("providers") && table.contains_key("models"))
    };
    all.retain(|(_, text)| is_whole(text));
    all
}

#[test]
fn every_whole_configuration_of_the_documentation_starts() {
    let all = whole_configurations();
    let from = |name: &str| all.iter().filter(|(file, _)| file.ends_with(name)).count();
    for expected in ["README.md", "docs/quickstart.md", "config/tierway.example.toml", "config/tierway.toml"] {
        assert!(from(expected) > 0, "{expected} shows no whole configuration");
    }
    for (file, configuration) in &all {
        let place = Place::with(configuration);
        let names: BTreeSet<&str> = configuration
            .match_indices("\"env:")
            .filter_map(|(at, start)| configuration[at + start.len()..].split('"').next())
            .collect();
        let mut command = place.command(&["serve", "--config", "tierway.toml"]);
        command.envs(names.iter().map(|name| (name, format!("tw_for_tests_{name}"))));
        println!("{file}");
        let (code, said) = Running::start(command).stop();
        assert_eq!(code, Some(0), "{file}: {said}");
    }
}
