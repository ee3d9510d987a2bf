//! The fixture of the proof: keys, accounts and models, with prices and limits that change over time.
//!
//! A [`Version`] is what one configuration file says; the versions of a run follow from its seed. It starts
//! no process. Start reading in [`Version::of`], then [`Version::file`].

use crate::script::{CEILING, Tokens};
use std::fmt::Write as _;
use std::net::SocketAddr;
use tierway::domain::budget::{BudgetPeriod, Zone};
use tierway::domain::money::{NanoUsd, PicoUsdPerToken};
use tierway::domain::pricing::Price;
use tierway::domain::random::RandomValue;
use tierway::domain::usage::Usage;

/// The number of clients, and of model names that each uses in turn: they identify a receipt whose client
/// disconnected before it could read an id.
pub const CLIENTS: usize = 12;
pub const NAMES: usize = 16;

/// A key and the accounts it pays from, by their places in [`ACCOUNTS`].
pub struct Key {
    pub name: &'static str,
    pub secret: &'static str,
    team: Option<&'static str>,
    policy: &'static str,
    pub accounts: &'static [usize],
}

pub const KEYS: [Key; 8] = [
    key("one", "ONE", Some("red"), "daily", &[0, 2]),
    key("two", "TWO", Some("red"), "daily", &[1, 2]),
    key("three", "THREE", Some("blue"), "once", &[3, 5]),
    key("four", "FOUR", Some("blue"), "once", &[4, 5]),
    key("five", "FIVE", None, "pooled", &[6]),
    key("six", "SIX", None, "pooled", &[6]),
    // Without a budget: its lines must be exact all the same.
    key("seven", "SEVEN", None, "free", &[]),
    // Of credit alone, which is granted little by little.
    key("eight", "EIGHT", None, "prepaid", &[7]),
];

/// The key that some configurations do not have: it is disabled while its requests are under way.
pub const DISABLED: &str = "six";
/// The key that credit is granted to.
pub const GRANTED: &str = "eight";

const fn key(
    name: &'static str,
    secret: &'static str,
    team: Option<&'static str>,
    policy: &'static str,
    accounts: &'static [usize],
) -> Key {
    Key { name, secret, team, policy, accounts }
}

/// An account as in the table `budgets`, and its share of what the run may cost.
pub struct Account {
    pub scope: &'static str,
    pub name: &'static str,
    kind: &'static str,
    zone: &'static str,
    /// Limit, in parts of a thousand of what its keys would spend in the whole run.
    share: u64,
}

pub const ACCOUNTS: [Account; 8] = [
    Account { scope: "key", name: "one", kind: "day", zone: "America/St_Johns", share: 90 },
    Account { scope: "key", name: "two", kind: "day", zone: "America/St_Johns", share: 160 },
    Account { scope: "team", name: "red", kind: "month", zone: "Europe/Paris", share: 250 },
    Account { scope: "key", name: "three", kind: "none", zone: "UTC", share: 500 },
    Account { scope: "key", name: "four", kind: "none", zone: "UTC", share: 800 },
    Account { scope: "team", name: "blue", kind: "day", zone: "Europe/Paris", share: 150 },
    Account { scope: "policy", name: "pooled", kind: "day", zone: "America/New_York", share: 120 },
    Account { scope: "key", name: "eight", kind: "credit", zone: "UTC", share: 100 },
];

impl Account {
    pub fn window(&self) -> BudgetPeriod {
        let zone = Zone::named(self.zone).expect("it is built in");
        match self.kind {
            "day" => BudgetPeriod::Day(zone),
            "month" => BudgetPeriod::Month(zone),
            "credit" => BudgetPeriod::Credit,
            _ => BudgetPeriod::Ever,
        }
    }

    pub fn keys(place: usize) -> impl Iterator<Item = usize> {
        (0..KEYS.len()).filter(move |key| KEYS[*key].accounts.contains(&place))
    }

    fn budget(&self, limit: i64) -> String {
        let zone = if self.kind == "none" { String::new() } else { format!(", zone = \"{}\"", self.zone) };
        format!("budget = {{ limit = \"{}\", window = \"{}\"{zone} }}", NanoUsd(limit), self.kind)
    }
}

/// What a policy says that hedges.
const HEDGE: &str = r#"hedge  = { after = "20ms", at_least = "20ms", extra = "30%" }"#;

impl Key {
    /// Whether its late requests are hedged.
    pub fn hedges(&self) -> bool {
        matches!(self.policy, "daily" | "pooled")
    }
}

/// Deployments by name; those of the second provider have prices of their own. Messages are asked for at the same two
/// providers, by other names.
pub const DEPLOYMENTS: [&str; 4] = ["a/small", "b/small", "a/large", "b/large"];

/// The place of a deployment that the gateway knows by this name.
pub fn place_of(name: &str) -> Option<usize> {
    let name = name.replacen("c/", "a/", 1).replacen("d/", "b/", 1);
    DEPLOYMENTS.iter().position(|known| *known == name)
}

/// The deployment behind a request line and the model it asks for.
pub fn deployment(start: &str, model: &str) -> usize {
    let name = format!("{}/{model}", if start.starts_with("POST /a/") { "a" } else { "b" });
    place_of(&name).expect("the gateway asks for what is configured")
}

/// What one configuration file says.
#[derive(Clone, Debug)]
pub struct Version {
    /// Pico-dollars for an input, a cached input and an output token, of each deployment.
    pub prices: [[u64; 3]; 4],
    /// Nano-dollars, of each account; of credit, all that is granted by then.
    pub limits: [i64; ACCOUNTS.len()],
    /// What of the credit is granted with it.
    pub grant: i64,
    /// Whether it has the key that is disabled now and then.
    pub has_all_keys: bool,
    number: u64,
}

/// The account of credit, by its place in [`ACCOUNTS`].
const CREDIT: usize = 7;

/// What a request costs on average, roughly, in nano-dollars.
const TYPICAL: u64 = 1_000_000;

impl Version {
    /// The `number`th version of a run of so many requests.
    pub fn of(seed: u64, requests: u64, number: u64) -> Self {
        let draw = RandomValue(seed).salted(1 << 50).salted(number);
        // Odd pico-dollars, so that roundings show.
        let price =
            |base: u64, salt| base * (70 + draw.salted(salt).below(60)) / 100 + draw.salted(salt + 1).below(999);
        let model =
            |base: u64, salt, output| [price(base, salt), price(base / 10, salt + 2), price(base * output, salt + 4)];
        // At the provider that goes on dear enough that an output which nobody sees shows beside an input that is
        // estimated high.
        let large = [model(3_000_000, 20, 2), model(3_000_000, 30, 40)];
        let limit = |place: usize| {
            let spends = Account::keys(place).count() as u64 * requests / KEYS.len() as u64 * TYPICAL;
            // What was granted stays.
            let moved = if place == CREDIT { 100 } else { 70 + draw.salted(40 + place as u64).below(60) };
            i64::try_from(spends * ACCOUNTS[place].share / 1000 * moved / 100).expect("a run is not that dear")
        };
        let mut limits: [i64; ACCOUNTS.len()] = std::array::from_fn(limit);
        let grant = |number: u64| limits[CREDIT] / if number == 0 { 1 } else { 5 };
        let (now, all) = (grant(number), (0..=number).map(grant).sum::<i64>());
        limits[CREDIT] = all;
        let prices = [model(1_000_000, 0, 2), model(1_400_000, 10, 2), large[0], large[1]];
        Self { prices, limits, grant: now, has_all_keys: number % 3 != 2, number }
    }

    /// What `tokens` cost at `deployment`.
    pub fn cost(&self, deployment: usize, tokens: Tokens) -> i64 {
        cost(self.prices[deployment], tokens)
    }

    /// What a request of `body` bytes may cost at `deployment` at most.
    pub fn worst(&self, deployment: usize, body: usize, output: u64) -> i64 {
        let [input, cached, out] = self.prices[deployment];
        cost([input.max(cached), 0, out], Tokens { input: body as u64 + TEMPLATE, cached: 0, output })
    }

    /// The keys with their own budgets, as lines of a comment where one is disabled.
    fn write_keys(&self, text: &mut String, own: [Option<String>; KEYS.len()]) {
        for (key, own) in KEYS.iter().zip(own) {
            let Key { name, secret, policy, .. } = key;
            let off = if *name == DISABLED && !self.has_all_keys { DISABLED_LINE } else { "" };
            let _ = write!(
                text,
                "{off}[[keys]]\n{off}name = \"{name}\"\n{off}policy = \"{policy}\"\n{off}secret = \"env:{secret}\"\n"
            );
            key.team.inspect(|team| text.push_str(&format!("team = \"{team}\"\n")));
            own.inspect(|own| text.push_str(&format!("{own}\n")));
        }
    }

    /// The configuration file.
    pub fn file(&self, provider: SocketAddr) -> String {
        let [small, at_b, large, large_at_b] = self.prices.map(|[input, cached, output]| {
            let [input, cached, output] = [input, cached, output].map(per_million);
            format!("{{ input = \"{input}\", cached_input = \"{cached}\", output = \"{output}\" }}")
        });
        let [one, two, red, three, four, blue, pooled] =
            std::array::from_fn(|place| ACCOUNTS[place].budget(self.limits[place]));
        let on_abandon = if self.number.is_multiple_of(2) { "read_on" } else { "charge_hold" };
        let providers = providers(provider, on_abandon);
        let mut text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
drain  = "5s"
[store]
url = "sqlite:tierway.db"
[telemetry]
log = "warn"
[routing]
balance      = "ordered"
retry_budget = "100%"
silent_after = "100ms"
first_token  = "1s"
whole        = "3s"
breaker      = {{ failures = 1000000, ratio = "0.01%", min_requests = 1000000, open = "10ms", open_max = "10ms" }}
{providers}[models.small]
price       = {small}
context     = 8192
max_output  = {CEILING}
endpoints   = ["chat", "messages", "responses"]
deployments = [{{ provider = "a" }}, {{ provider = "b", price = {at_b} }}, {{ provider = "c" }}, {{ provider = "d", price = {at_b} }}]
[models.large]
price       = {large}
context     = 8192
max_output  = {CEILING}
endpoints   = ["chat", "messages", "responses"]
deployments = [{{ provider = "b", price = {large_at_b} }}, {{ provider = "a" }}, {{ provider = "d", price = {large_at_b} }}, {{ provider = "c" }}]
[policies.daily]
models = ["*"]
{HEDGE}
[policies.once]
models = ["*"]
clamp  = true
[policies.pooled]
models = ["*"]
{HEDGE}
total  = {{ {pooled} }}
[policies.free]
models = ["*"]
[policies.prepaid]
models = ["*"]
credit = "only"
[teams.red]
{red}
[teams.blue]
{blue}
"#
        );
        self.write_keys(&mut text, [Some(one), Some(two), Some(three), Some(four), None, None, None, None]);
        for name in (0..CLIENTS * NAMES).flat_map(|place| [false, true].map(|large| alias(place, large))) {
            let model = if name.starts_with("large") { "large" } else { "small" };
            let _ = writeln!(text, "[aliases.{name}]\nsplit = {{ {model} = 100 }}");
        }
        text
    }
}

/// Two providers, each by a name for each of the two protocols that it speaks.
fn providers(provider: SocketAddr, on_abandon: &str) -> String {
    format!(
        r#"[providers.a]
protocol = "openai"
base_url = "http://{provider}/a/v1"
region   = "here"
[providers.b]
protocol = "openai"
base_url = "http://{provider}/b/v1"
region   = "there"
max_tokens_name = "max_completion_tokens"
on_abandon = "{on_abandon}"
[providers.c]
protocol = "anthropic"
base_url = "http://{provider}/a/v1"
region   = "here"
[providers.d]
protocol = "anthropic"
base_url = "http://{provider}/b/v1"
region   = "there"
on_abandon = "{on_abandon}"
"#
    )
}

/// How a line of a key begins that is disabled.
pub const DISABLED_LINE: &str = "#disabled ";

/// What a template may add to a body, in tokens.
const TEMPLATE: u64 = 256;

/// What `tokens` cost at prices in pico-dollars a token.
pub fn cost([input, cached_input, output]: [u64; 3], tokens: Tokens) -> i64 {
    let [input, cached_input, output] = [input, cached_input, output].map(PicoUsdPerToken);
    let price = Price { input, cached_input, output, ..Price::default() };
    let usage = Usage { input: tokens.input, cached_input: tokens.cached, output: tokens.output, ..Usage::default() };
    price.cost(usage).0
}

/// The `place`th name for one of the two models.
pub fn alias(place: usize, large: bool) -> String {
    format!("{}-{place}", if large { "large" } else { "small" })
}

/// Pico-dollars a token as dollars a million tokens, in decimals.
fn per_million(pico: u64) -> String {
    format!("{}.{:06}", pico / 1_000_000, pico % 1_000_000)
}
