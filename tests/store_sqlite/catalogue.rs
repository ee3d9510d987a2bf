//! A budget works at once after `init`: what the file does not say is the price catalogue's.

use crate::budgets::Provider;
use crate::process::{Client, Running};
use std::path::Path;
use std::process::{Command, Stdio};
use tierway::config::{CatalogueMatch, PriceCatalogue};
use tierway::domain::usage::Usage;

const MODEL: &str = "gpt-4o-mini";
const OPENAI: &str = "https://api.openai.com/v1";

fn tierway(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.env_clear().env("OPENAI_API_KEY", "sk-canary").env("TIERWAY__SERVER__LISTEN", "127.0.0.1:0");
    command
}

fn printed(folder: &Path, args: &[&str]) -> String {
    let output = tierway(folder, args).output().expect("the binary starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

#[test]
fn after_init_with_one_provider_key_a_budget_works_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let folder = folder.path();
    let provider = Provider::start();
    printed(folder, &["init"]);
    // The only change: OpenAI is reached through another address, which an operator's catalogue says has its models.
    let file = folder.join("tierway.toml");
    let text = std::fs::read_to_string(&file).expect("init wrote it");
    std::fs::write(&file, text.replace(OPENAI, &format!("http://{}/v1", provider.addr))).expect("it can be written");
    let catalogue = "as_of = \"2026-11-01\"\nsource = \"a test\"\n[hosts.proxy]\naddress = [\"127.0.0.1:*\"]\nalso = [\"openai\"]\n";
    std::fs::write(folder.join("mine.toml"), catalogue).expect("the folder can be written");
    printed(folder, &["prices", "import", "mine.toml"]);

    let key = printed(folder, &["keys", "create", "app", "--policy", "standard", "--budget", "5"]);
    let gateway = Running::hearing(tierway(folder, &["serve"]), |_| true);
    let mut client = Client::connect(gateway.addr).expect("it listens");
    let answer = client.chat_by(key.trim(), MODEL).expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    gateway.stop();

    let found = PriceCatalogue::built_in().find(OPENAI, MODEL).expect("the built-in catalogue can be read");
    let Some(CatalogueMatch::Found(entry)) = found else { panic!("{found:?}") };
    // As the provider counts every answer.
    let usage = Usage { input: 30, output: 2, ..Usage::default() };
    let cost = entry.prices.expect("it has a price").at(0).for_input(usage.input).cost(usage);
    let budgets = printed(folder, &["budgets", "--json"]);
    assert!(budgets.contains(&format!("\"{cost}\"")), "{cost}: {budgets}");
}
