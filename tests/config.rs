//! Configuration from the outside: what loads, what is refused, and the text of each refusal.
//!
//! Every kind of problem has a snapshot of what the operator reads. The environment is made up, so that
//! nothing depends on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use tierway::config::{
    ConfigSource, DisplayValue, Environment, ExtraKey, KeyHash, MASK, ProviderTransport, Snapshot, StoreLocation, find,
    load,
};
use tierway::domain::call::Endpoint;
use tierway::domain::random::RandomValue;
use tierway::domain::routing::table::{Capacity, Deployment};

const DESIGN_EXAMPLE: &str = include_str!("config/design_example.toml");
const SHIPPED_EXAMPLE: &str = include_str!("../config/tierway.example.toml");

/// A provider and a model: the least that loads.
const LEAST: &str = "\
[providers.p]
protocol = \"sim\"
region = \"us-east\"

[models.m]
deployments = [{ provider = \"p\" }]

";

/// An environment with the given variables and files.
#[derive(Default)]
struct TestEnvironment {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, &'static str>,
}

impl TestEnvironment {
    fn with_variables(variables: &[(&'static str, &'static str)]) -> Self {
        Self { variables: variables.iter().copied().collect(), files: BTreeMap::new() }
    }

    /// What the examples ask for.
    fn of_the_examples() -> Self {
        Self::with_variables(&[
            ("TIERWAY_ADMIN_TOKEN", "canary-admin-token"),
            ("GLOBAL_API_KEY", "canary-provider-credential"),
            ("GROWTH_APP_KEY", "canary-client-key"),
        ])
    }
}

impl Environment for TestEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|&value| value.to_owned())
    }

    fn variables(&self) -> Vec<(String, String)> {
        let owned = |(name, value): (&&str, &&str)| ((*name).to_owned(), (*value).to_owned());
        self.variables.iter().map(owned).collect()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.map(|&text| text.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn source(text: &str) -> ConfigSource {
    ConfigSource::File { path: PathBuf::from("tierway.toml"), text: text.to_owned() }
}

fn loaded(text: &str, environment: &TestEnvironment) -> Snapshot {
    load(&source(text), environment, &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What the operator reads about `text`, appended to the least that loads.
fn problem_text(text: &str, environment: &TestEnvironment) -> String {
    let text = format!("{LEAST}{text}");
    match load(&source(&text), environment, &[]) {
        Ok(_) => panic!("loads, and should not:\n{text}"),
        Err(problems) => problems.render(false),
    }
}

macro_rules! refused {
    ($($name:ident: $text:expr;)+) => {
        mod refused {
            use super::*;
            $(
                #[test]
                fn $name() {
                    insta::assert_snapshot!(stringify!($name), problem_text($text, &TestEnvironment::default()));
                }
            )+
        }
    };
}

refused! {
    // the file as such
    not_toml: "[server]\nlisten = 127.0.0.1\n";
    not_toml_beside_other_problems: "[server]\nlisten = = 1\ndrian = \"30s\"\n";
    not_toml_on_a_line_with_a_secret: "[server]\nadmin_token = \"sk-canary\n";
    one_setting_twice: "[server]\ndrain = \"1s\"\ndrain = \"2s\"\n";
    unknown_setting: "[server]\nlisen = \"127.0.0.1:80\"\n";
    unknown_setting_like_no_other: "[telemetry]\nflavour = \"mint\"\n";
    unknown_table: "[provider.q]\nprotocol = \"sim\"\n";
    unknown_setting_that_may_be_a_secret: "[providers.q]\nprotocol = \"sim\"\ncredentail = \"sk-canary\"\n";
    a_value_instead_of_a_table: "[routing]\nbreaker = 3\n";
    // types
    a_number_instead_of_a_string: "[providers.q]\nprotocol = 3\n";
    a_string_instead_of_a_number: "[routing]\nmax_attempts = \"3\"\n";
    a_string_instead_of_a_flag: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example\"\nhttp2 = \"yes\"\n";
    a_negative_number: "[routing]\nmax_attempts = -1\n";
    a_number_too_large: "[routing]\nmax_attempts = 4294967296\n";
    a_duration_without_unit: "[routing]\nidle = \"20\"\n";
    a_duration_as_a_number: "[routing]\nidle = 20\n";
    a_duration_of_zero: "[routing]\nidle = \"0s\"\n";
    a_size_with_a_wrong_unit: "[server]\nmax_body = \"32MB\"\n";
    money_as_a_float: "[models.x]\nprice = { input = 0.07, output = \"0.25\" }\ndeployments = [{ provider = \"p\" }]\n";
    money_with_too_many_decimals: "[models.x]\nprice = { input = \"0.0000007\", output = \"0.25\" }\ndeployments = [{ provider = \"p\" }]\n";
    a_percentage_above_a_hundred: "[routing]\nretry_budget = \"120%\"\n";
    a_word_that_is_none_of_those: "[routing]\nbalance = \"latencey\"\n";
    an_address_without_port: "[server]\nlisten = \"127.0.0.1\"\n";
    a_log_level_that_is_none: "[telemetry]\nlog = \"inof\"\n";
    a_store_we_do_not_know: "[store]\nurl = \"mysql://tierway:canary@db/tierway\"\n";
    a_place_for_limits_that_cannot_count: "[store]\nurl = \"postgres://db/x\"\nshared = \"memcached://me:canary@x\"\n";
    limits_of_several_gateways_on_a_store_of_one: "[store]\nshared = \"redis://:canary@cache\"\n";
    a_retention_that_keeps_nothing: "[store]\nretention = \"0d\"\n";
    a_retention_in_hours: "[store]\nretention = \"48h\"\n";
    a_name_with_a_blank: "[tiers.\"my tier\"]\nmodels = [\"m\"]\n";
    // providers
    a_provider_without_protocol: "[providers.q]\nregion = \"eu\"\n";
    a_provider_without_url: "[providers.q]\nprotocol = \"openai\"\n";
    a_provider_with_a_password_in_its_url: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://me:canary@x.example/v1\"\n";
    a_provider_that_is_no_url: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"x.example/v1\"\n";
    a_credential_written_out: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\ncredential = \"sk-canary\"\n";
    a_credential_that_is_not_set: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\ncredential = [\"env:NOT_SET\", \"file:/not/there\"]\n";
    a_credential_with_a_relative_path: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\ncredential = \"file:key\"\n";
    a_proxy_with_a_password_written_out: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\nproxy = \"http://me:canary@proxy.example:3128\"\n";
    a_proxy_that_speaks_socks: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\nproxy = \"socks5://proxy.example:1080\"\n";
    an_authority_that_is_not_there: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\nca = \"file:/not/there\"\n";
    a_proxy_with_a_path: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\nproxy = \"http://proxy.example:3128/pac\"\n";
    a_proxy_of_http2_without_tls: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"http://x.example/v1\"\nhttp2 = true\nproxy = \"http://proxy.example:3128\"\n";
    a_simulated_provider_with_a_url: "[providers.q]\nprotocol = \"sim\"\nbase_url = \"https://x.example/v1\"\n";
    a_provider_with_settings_of_a_simulated_one: "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\nfirst_token = \"1s\"\nerror_rate = \"1%\"\n";
    // models
    a_model_nobody_serves: "[models.x]\ndeployments = []\n";
    a_model_without_deployments: "[models.x]\ncontext = 1\n";
    a_model_with_half_a_price: "[models.x]\nprice = { input = \"1\" }\ndeployments = [{ provider = \"p\" }]\n";
    a_first_price_with_a_date: "[models.x]\nprice = { from = \"2027-01-01\", input = \"1\", output = \"2\" }\ndeployments = [{ provider = \"p\" }]\n";
    a_second_price_without_a_date: "[models.x]\nprice = [{ input = \"1\", output = \"2\" }, { input = \"2\", output = \"3\" }]\ndeployments = [{ provider = \"p\" }]\n";
    a_price_from_no_day: "[models.x]\nprice = [{ input = \"1\", output = \"2\" }, { from = \"2027-02-29\", input = \"2\", output = \"3\" }, { from = 2027-03-01T00:00:00Z, input = \"2\", output = \"3\" }]\ndeployments = [{ provider = \"p\" }]\n";
    prices_out_of_order: "[models.x]\nprice = [{ input = \"1\", output = \"2\" }, { from = \"2027-06-01\", input = \"2\", output = \"3\" }, { from = \"2027-01-01\", input = \"2\", output = \"3\" }]\ndeployments = [{ provider = \"p\" }]\n";
    two_prices_from_one_day: "[models.x]\nprice = [{ input = \"1\", output = \"2\" }, { from = 2027-01-01, input = \"2\", output = \"3\" }, { from = \"2027-01-01\", input = \"3\", output = \"4\" }]\ndeployments = [{ provider = \"p\" }]\n";
    two_prices_of_one_name: "[models.x]\nprice = [{ input = \"1\", output = \"2\", version = \"spring\" }, { from = \"2027-01-01\", input = \"2\", output = \"3\", version = \"spring\" }]\ndeployments = [{ provider = \"p\" }]\n";
    thresholds_out_of_order: "[models.x]\nprice = { input = \"1\", output = \"2\", above = [{ tokens = 9, input = \"2\" }, { tokens = 9, input = \"3\" }, { input = \"4\" }] }\ndeployments = [{ provider = \"p\" }]\n";
    a_list_without_a_price: "[models.x]\nprice = []\ndeployments = [{ provider = \"p\" }]\n";
    a_price_as_text: "[models.x]\nprice = [\"0.25\"]\ndeployments = [{ provider = \"p\" }]\n";
    a_price_of_a_deployment_without_a_date: "[models.x]\ndeployments = [{ provider = \"p\", price = [{ input = \"1\", output = \"2\" }, { input = \"2\", output = \"3\" }] }]\n";
    a_model_with_a_reserved_name: "[models.\"Pro/x\"]\ndeployments = [{ provider = \"p\" }]\n";
    a_model_that_says_more_than_it_holds: "[models.x]\ncontext = 1000\nmax_output = 2000\ndeployments = [{ provider = \"p\" }]\n";
    an_endpoint_we_do_not_know: "[models.x]\nendpoints = [\"chat\", \"images\"]\ndeployments = [{ provider = \"p\" }]\n";
    a_deployment_at_an_unknown_provider: "[models.x]\ndeployments = [{ provider = \"pp\" }]\n";
    a_deployment_without_provider: "[models.x]\ndeployments = [{ weight = 1 }]\n";
    a_deployment_of_weight_zero: "[models.x]\ndeployments = [{ provider = \"p\", weight = 0 }]\n";
    two_deployments_with_one_name: "[models.x]\ndeployments = [{ provider = \"p\" }, { provider = \"p\" }]\n";
    a_shared_deployment_that_spills: "[models.x]\ndeployments = [{ provider = \"p\", spill = true }]\n";
    // tiers and aliases
    a_tier_with_an_unknown_model: "[tiers.a]\nmodels = [\"mm\"]\n";
    a_tier_with_a_model_twice: "[tiers.a]\nmodels = [\"m\", { name = \"m\", weight = 2 }]\n";
    a_tier_without_models: "[tiers.a]\nmodels = []\n";
    a_tier_with_a_reserved_name: "[tiers.a]\nmodels = [\"Pro/m\"]\n";
    a_tier_with_dedicated_capacity_only: "[models.x]\ndeployments = [{ provider = \"p\", capacity = \"dedicated\" }]\n[tiers.a]\nmodels = [\"x\"]\n";
    a_tier_that_steps_to_an_unknown_one: "[tiers.a]\nmodels = [\"m\"]\nthen = [\"b\"]\n";
    a_tier_that_steps_to_itself: "[tiers.a]\nmodels = [\"m\"]\nthen = [\"a\"]\n";
    a_tier_that_steps_to_another_twice: "[tiers.a]\nmodels = [\"m\"]\nthen = [\"b\", \"b\"]\n[tiers.b]\nmodels = [\"m\"]\n";
    a_tier_hidden_by_a_model: "[tiers.m]\nmodels = [\"m\"]\n";
    an_alias_hidden_by_a_model: "[tiers.a]\nmodels = [\"m\"]\n[aliases.m]\nsplit = { a = 1 }\n";
    an_alias_over_nothing: "[aliases.auto]\nsplit = {}\n";
    an_alias_without_split: "[aliases.auto]\nsticky = \"key\"\n";
    an_alias_over_an_unknown_name: "[tiers.default]\nmodels = [\"m\"]\n[aliases.auto]\nsplit = { defualt = 1 }\n";
    an_alias_over_an_alias: "[aliases.a]\nsplit = { m = 1 }\n[aliases.b]\nsplit = { a = 1 }\n";
    an_alias_with_a_share_of_zero: "[aliases.auto]\nsplit = { m = 0 }\n";
    // SLAs
    an_sla_above_a_hundred: "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"100.1%\", credits = [{ below = \"99%\", credit = \"101%\" }] }\n";
    an_sla_without_uptime: "[policies.a]\nmodels = [\"*\"]\nsla = { first_token = \"500ms\" }\n";
    an_sla_whose_steps_are_out_of_order: "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\", credits = [{ below = \"99.95%\", credit = \"10%\" }, { below = \"99%\", credit = \"10%\" }, { below = \"99%\", credit = \"25%\" }, { below = \"95%\", credit = \"0%\" }] }\n";
    an_sla_whose_receipts_are_not_kept: "[store]\nretention = \"30d\"\n[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\" }\n";
    probes_too_often: "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\" }\n[sla]\nprobe = \"4s\"\n";
    probes_too_rarely: "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\" }\n[sla]\nprobe = \"301s\"\n";
    probes_of_no_sla: "[policies.a]\nmodels = [\"*\"]\n[sla]\nprobe = \"30s\"\n";
    an_sla_measured_in_an_unknown_way: "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\", measure = \"10m\", zone = \"Mars/Olympus\", first_token = { p = \"95%\" } }\n";
    // routing
    a_breaker_that_opens_longer_than_it_may: "[routing]\nbreaker = { open = \"30s\" }\n";
    more_than_one_retry_on_500: "[routing]\nsame_region_retry_on_500 = 2\n";
    most_in_flight_in_words: "[server]\nmax_in_flight = \"many\"\n";
    adaptive_bounds_crossed: "[server]\nmax_in_flight = \"adaptive\"\nadaptive_at_least = 9\nadaptive_at_most = 8\n";
    bounds_of_a_fixed_limit: "[server]\nmax_in_flight = 40\nadaptive_at_most = 80\n";
    // policies and keys
    a_policy_that_allows_nothing: "[policies.a]\nreserved = true\n";
    a_policy_with_an_unknown_tier: "[tiers.default]\nmodels = [\"m\"]\n[policies.a]\ntiers = [\"defaults\"]\n";
    a_policy_with_a_pattern_that_fits_no_model: "[policies.a]\nmodels = [\"gpt-*\"]\n";
    a_policy_with_a_pattern_that_fits_no_region: "[policies.a]\nmodels = [\"*\"]\nregions = [\"eu-*\"]\n";
    a_limit_of_zero: "[policies.a]\nmodels = [\"*\"]\nrequests_per_minute = 0\n";
    a_budget_on_a_model_without_ceilings: "[policies.a]\nmodels = [\"m\"]\nbudget = { limit = \"5.00\" }\n";
    a_budget_on_a_model_without_a_price: "[models.x]\ncontext = 9\nmax_output = 9\ndeployments = [{ provider = \"p\" }]\n[policies.a]\nmodels = [\"x\"]\nbudget = { limit = \"5.00\" }\n";
    a_budget_shared_on_a_model_without_ceilings: "[policies.a]\nmodels = [\"m\"]\ntotal = { budget = { limit = \"5.00\" } }\n";
    a_budget_in_no_zone: "[teams.t]\nbudget = { limit = \"5.00\", window = \"day\", zone = \"Mars/Olympus\" }\n";
    a_key_with_more_than_its_policys_budget: "[models.x]\nprice = { input = \"1\", output = \"1\" }\ncontext = 9\nmax_output = 9\ndeployments = [{ provider = \"p\" }]\n[policies.a]\nmodels = [\"x\"]\nbudget = { limit = \"5.00\" }\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nbudget = { limit = \"6.00\" }\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    a_budget_without_limit: "[teams.t]\nbudget = { window = \"day\" }\n";
    a_key_with_an_unknown_policy: "[policies.standard]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"standart\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    a_key_without_secret: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\n";
    a_key_with_secret_and_hash: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nsecret = \"env:K\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    a_key_with_its_secret_written_out: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nsecret = \"sk-canary\"\n";
    a_key_with_a_bad_hash: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nhash = \"sk-canary\"\n";
    a_key_with_a_bad_date: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nexpires = \"2027-02-29\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    a_key_that_loosens_its_policy: "[policies.a]\nmodels = [\"*\"]\nmax_concurrent = 4\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nmax_concurrent = 5\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    two_keys_with_one_name: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nhash = \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\n";
    two_keys_with_one_secret: "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n[[keys]]\nname = \"l\"\npolicy = \"a\"\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    // the server
    no_admin_token_off_loopback: "[server]\nlisten = \"0.0.0.0:8080\"\n";
}

#[test]
fn refused_for_everything_at_once() {
    let text = "[server]\nlisten = \"nowhere\"\ndrian = \"30s\"\n\n[tiers.a]\nmodels = [\"x\"]\nthen = [\"a\"]\n\n[policies.p]\ntiers = [\"b\"]\nregions = [\"mars-*\"]\nmax_concurrent = 0\n";
    insta::assert_snapshot!(problem_text(text, &TestEnvironment::default()));
}

#[test]
fn refused_for_an_empty_file() {
    let problems = load(&source(""), &TestEnvironment::default(), &[]).expect_err("nothing is configured");
    insta::assert_snapshot!(problems.render(false));
}

#[test]
fn refused_for_the_environment() {
    let environment = TestEnvironment::with_variables(&[
        ("TIERWAY__SERVER__LISTEN", "0.0.0.0"),
        ("TIERWAY__SERVER__DRIAN", "canary"),
        ("TIERWAY__PROVIDERS__P__REGION", "canary"),
        ("TIERWAY__ROUTING__BREAKER__FAILURES", "0"),
        ("TIERWAY__TELEMETRY__METRICS_TOKEN", "Bearer canary"),
    ]);
    let problem_text = problem_text("", &environment);
    assert!(!problem_text.contains("canary"), "{problem_text}");
    insta::assert_snapshot!(problem_text);
}

#[test]
fn refused_for_an_empty_variable() {
    let environment = TestEnvironment::with_variables(&[("EMPTY", "")]);
    insta::assert_snapshot!(problem_text("[server]\nadmin_token = \"env:EMPTY\"\n", &environment));
}

/// Of a text that is not TOML, that is said first, and of another language nothing else.
#[test]
fn a_wrong_first_line_is_the_first_problem() {
    let said = |text: &str| {
        let problems = load(&source(text), &TestEnvironment::default(), &[]).expect_err("it is not TOML");
        assert!(!problems.render(false).contains("canary"), "{}", problems.render(false));
        let all: Vec<_> = problems.iter().map(|problem| (problem.message.clone(), problem.position)).collect();
        all
    };
    let yaml = ("not TOML: the file looks like YAML".to_owned(), Some((2, 1)));
    assert_eq!(said("# ours\nserver:\n  listen: 127.0.0.1:8080\n  admin_token: canary\n"), [yaml]);
    let yaml = ("not TOML: the file looks like YAML".to_owned(), Some((1, 1)));
    assert_eq!(said("admin_token: canary\n"), [yaml]);
    let json = ("not TOML: the file looks like JSON".to_owned(), Some((1, 1)));
    for text in ["{\"server\": {\"admin_token\": \"canary\"}}\n", "{\n  \"server\": { \"listen\": 1,\n", "[{\"a\": 1}]"]
    {
        assert_eq!(said(text), std::slice::from_ref(&json), "{text}");
    }
    for text in ["listen 127.0.0.1\n[routing]\nmax_attempts = 0\n", "listen: 1\n[routing]\nmax_attempts = 0\n"] {
        let all = said(text);
        assert!(all[0].0.starts_with("not TOML") && all[0].1.is_some_and(|(line, _)| line == 1), "{all:?}");
        assert!(all.iter().any(|(message, _)| message.contains("no provider")), "{all:?}");
    }
    let text = format!("\u{feff}{LEAST}");
    load(&source(&text), &TestEnvironment::default(), &[]).unwrap_or_else(|problems| panic!("{problems}"));
}

/// A literal where a secret belongs, or under an unknown name, is never shown.
#[test]
fn no_problem_shows_a_secret() {
    let check = |text: &str| {
        let problem_text = problem_text(text, &TestEnvironment::default());
        assert!(!problem_text.contains("canary"), "{text}\n{problem_text}");
    };
    check("[server]\nadmin_token = \"canary\"\n");
    check("[server]\nadmin_token = [\"canary\"]\n");
    check("[server]\nadmin_token = { env = \"canary\" }\n");
    check("[server]\nadmin_tokn = \"canary\"\n");
    check("[server]\nadmin_token = canary\n");
    check("[server]\nadmin_token = \"\"\"canary\n");
    check("[server]\nadmin_token = 'canary\n");
    check("[server]\nadmin_token = \"\"\"\ncanary\"\"\" x\n");
    check("[providers.q]\ncredential = [\"canary\", \"canary\"]\n");
    check("[providers]\nq = { protocol = \"openai\", credential = \"canary\", tokn = [\"canary\"] }\n");
    check("[providers]\nq = { protocol = \"nope\", credential = \"canary\" }\n");
    check("[providers]\nq = { protocol \"openai\", credential = \"canary\" }\n");
    check("[providers.q]\nbase_url = \"https://me:canary@x.example\"\n");
    check("[providers.q]\nproxy = \"http://me:canary@proxy.example:3128\"\n");
    check("[providers.q]\nproxy = \"https://me:canary@proxy.example:3128\"\n");
    check("[store]\nurl = \"postgres://me:canary@db/x\"\nshraed = \"redis://:canary@x\"\n");
    check("store = { url = \"postgres://me:canary@db/x\", shared = 3 }\n");
    check("[[keys]]\nhash = \"canary\"\nsecret = \"canary\"\n");
    check("[[tiers]]\nsecret = \"canary\"\n");
    check("[providers.q]\nprotocol = { credential = \"canary\" }\n");
    check("[policies]\nq = [{ tokn = \"canary\" }]\n");
    check("[providers.q]\nbase_url = \"https://x.example/v1?key=canary\"\n");
    check("[providers.q]\nbase_url = \"https://me:can ary canary@x.example\"\n");
    check("[secrets]\nx = { y = \"canary\" }\n");
}

/// Whatever one typing error does to the example, it loads or is refused with a message, never shows the
/// secret that was written into it, and never ends the process.
#[test]
fn no_typing_error_shows_a_secret() {
    const SECRET: &str = "canary-literal";
    let text = DESIGN_EXAMPLE.replace("env:GLOBAL_API_KEY", SECRET).replace("env:GROWTH_APP_KEY", SECRET);
    let environment = TestEnvironment::of_the_examples();
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for seed in 0..500 {
        let draw = RandomValue(seed);
        let at = places[draw.salted(0).below(places.len() as u64) as usize];
        let slip =
            ["", "\"", "'", "[", "]", "{", "}", "=", "#", "\n", "x", ",", "é"][draw.salted(1).below(13) as usize];
        let (before, after) = text.split_at(at);
        let mut rest = after.chars();
        // Half of the slips replace a character, half put one in between.
        let after = if draw.salted(2).below(2) == 0 { rest.next().map_or("", |_| rest.as_str()) } else { after };
        let broken = format!("{before}{slip}{after}");
        match load(&source(&broken), &environment, &[]) {
            Ok(snapshot) => assert!(!snapshot.effective.to_toml().contains(SECRET), "seed {seed}: {broken}"),
            Err(problems) => {
                let said = problems.render(false);
                assert!(!said.contains(SECRET), "seed {seed}, {slip:?} at {at}:\n{said}");
            }
        }
    }
}

/// An origin is read as what browsers send; what none sends is refused with what to write.
#[test]
fn origins_of_web_pages_are_read_as_browsers_send_them() {
    let written = |origins: &str| format!("[server]\ncors_origins = {origins}\n");
    let check = |origins: &str, expected: &[&str]| {
        let snapshot = loaded(&format!("{LEAST}{}", written(origins)), &TestEnvironment::default());
        assert_eq!(snapshot.server.cors.origins, expected, "{origins}");
        assert_eq!(snapshot.server.cors.any, expected.contains(&"*"), "{origins}");
    };
    check("[]", &[]);
    check(r#""https://app.example.com""#, &["https://app.example.com"]);
    check(
        r#"["HTTPS://App.Example.com:443/", "http://localhost:3000"]"#,
        &["https://app.example.com", "http://localhost:3000"],
    );
    check(r#"["http://[::1]:80", "chrome-extension://abc"]"#, &["http://[::1]", "chrome-extension://abc"]);
    check(r#"["*", "https://app.example.com"]"#, &["*", "https://app.example.com"]);
    let refused = |origins: &str, expected: &str| {
        let said = problem_text(&written(origins), &TestEnvironment::default());
        assert!(said.contains("server.cors_origins") && said.contains(expected), "{origins}: {said}");
    };
    refused(r#"["null"]"#, "is the origin of every page without one");
    refused(r#""app.example.com""#, "has no scheme");
    for odd in
        ["https://app.example.com/page", "https://*.example.com", "https://", "https://me@a.example", "https://a b"]
    {
        refused(&format!("\"{odd}\""), "is more or less than scheme, host and port");
    }
    assert_eq!(loaded(LEAST, &TestEnvironment::default()).server.cors.origins, [""; 0]);
}

#[test]
fn every_problem_says_what_to_do() {
    let text = format!("{LEAST}[server]\nlisten = \"nowhere\"\ndrian = 3\n[tiers.a]\nmodels = [\"x\"]\n");
    let problems = load(&source(&text), &TestEnvironment::default(), &[]).expect_err("three things are wrong");
    assert_eq!(problems.count(), 3);
    let mut places = Vec::new();
    for problem in problems.iter() {
        assert!(!problem.hint.is_empty(), "{problem:?}");
        places.push((problem.setting.as_str(), problem.position));
    }
    let expected =
        [("server.listen", Some((9, 10))), ("server.drian", Some((10, 1))), ("tiers.a.models[0]", Some((12, 11)))];
    assert_eq!(places, expected);
}

#[test]
fn a_colour_terminal_gets_colours() {
    let problems = load(&source(""), &TestEnvironment::default(), &[]).expect_err("nothing is configured");
    assert!(problems.render(true).contains("\u{1b}["));
    assert!(!problems.render(false).contains("\u{1b}["));
}

/// Every setting by its path, as it may be shown.
fn meaning(snapshot: &Snapshot) -> BTreeMap<String, DisplayValue> {
    let one =
        |entry: &tierway::config::EffectiveSetting| (format!("{}.{}", entry.table, entry.name), entry.value.clone());
    snapshot.effective.entries().iter().map(one).collect()
}

#[test]
fn the_shipped_example_means_what_the_design_says() {
    let environment = TestEnvironment::of_the_examples();
    let (design, shipped) = (loaded(DESIGN_EXAMPLE, &environment), loaded(SHIPPED_EXAMPLE, &environment));
    // What is not built is shown as a comment, so that the example can be served as it is.
    assert!(shipped.unenforced.is_empty(), "{:?}", shipped.unenforced);
    let (mut meant, mut shown) = (meaning(&design), meaning(&shipped));
    for unenforced in &design.unenforced {
        meant.retain(|setting, _| !setting.starts_with(&unenforced.setting));
        shown.remove(&unenforced.setting);
    }
    assert_eq!(meant, shown);
    let keys = |snapshot: &Snapshot| snapshot.keys.keys().copied().collect::<std::collections::HashSet<_>>();
    assert_eq!(keys(&design), keys(&shipped));
}

/// Every setting in use is shown in the example.
#[test]
fn the_shipped_example_shows_every_setting() {
    let environment = TestEnvironment::of_the_examples();
    let optional = [
        "admin_listen",
        "ca",
        "proxy",
        "tls",
        "cert",
        "key",
        "shared",
        "otlp",
        "metrics_token",
        "cached_input",
        "features",
        "name",
        "hash",
        "expires",
        "region",
        "total",
        "error_rate",
        "tokens_per_second",
        "enabled",
        "zone",
        "models",
    ];
    let snapshot = loaded(DESIGN_EXAMPLE, &environment);
    // The names below [aliases.x.split] are the operator's own.
    let own = |table: &str| table.ends_with(".split");
    let known = snapshot.effective.entries().iter().filter(|entry| !own(&entry.table));
    let names: BTreeSet<&str> = known.map(|entry| entry.name.as_str()).chain(optional).collect();
    for name in names {
        let mentioned = SHIPPED_EXAMPLE.match_indices(name).any(|(at, _)| {
            let rest = SHIPPED_EXAMPLE[at + name.len()..].trim_start_matches(' ');
            rest.starts_with('=') || rest.starts_with(']')
        });
        assert!(mentioned, "config/tierway.example.toml does not show `{name}`");
    }
}

/// An environment whose files may not be read.
struct UnreadableFiles;

impl Environment for UnreadableFiles {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        // There is no operator's catalogue beside the configuration.
        let is_catalogue = path.ends_with("tierway.prices.toml");
        Err(if is_catalogue { io::ErrorKind::NotFound } else { io::ErrorKind::PermissionDenied }.into())
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named_with_what_to_do() {
    let text = format!("{LEAST}[server]\ntls = {{ cert = \"file:/etc/cert\", key = \"file:/etc/key\" }}\n");
    let problems = load(&source(&text), &UnreadableFiles, &[]).expect_err("nothing can be read");
    let said: Vec<(&str, &str)> = problems.iter().map(|p| (p.setting.as_str(), p.message.as_str())).collect();
    let expected = [
        ("server.tls.cert", "cannot read `/etc/cert`: permission denied"),
        ("server.tls.key", "cannot read `/etc/key`: permission denied"),
    ];
    assert_eq!(said, expected);
    assert!(problems.iter().all(|problem| problem.hint.contains("the user that the gateway runs as")));
}

#[test]
fn what_is_not_built_is_listed() {
    let snapshot = loaded(DESIGN_EXAMPLE, &TestEnvironment::of_the_examples());
    let settings: Vec<&str> = snapshot.unenforced.iter().map(|u| u.setting.as_str()).collect();
    let expected: [&str; 0] = [];
    assert_eq!(settings, expected);
    for unenforced in &snapshot.unenforced {
        assert!(!unenforced.why.is_empty(), "{unenforced:?}");
    }
}

#[test]
fn each_unbuilt_feature_is_found_by_its_setting() {
    let check = |text: &str, expected: &str| {
        let snapshot = loaded(&format!("{LEAST}{text}"), &TestEnvironment::default());
        let settings: Vec<&str> = snapshot.unenforced.iter().map(|u| u.setting.as_str()).collect();
        assert_eq!(settings, [expected], "{text}");
    };
    check("[telemetry]\notlp = \"http://127.0.0.1:4318\"", "telemetry.otlp");
    check("[store]\nurl = \"memory:\"\n[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\" }", "policies.a.sla");
    let probed = "[policies.a]\nmodels = [\"*\"]\nsla = { uptime = \"99.9%\" }\n[sla]\nprobe = \"30s\"";
    let in_memory = loaded(&format!("{LEAST}[store]\nurl = \"memory:\"\n{probed}"), &TestEnvironment::default());
    assert_eq!(in_memory.unenforced.len(), 2, "the SLA and its probes: {:?}", in_memory.unenforced);
    assert_eq!(in_memory.sla_probe, None);
    check("[policies.a]\nmodels = [\"*\"]\ntotal = { max_concurrent = 9 }", "policies.a.total.max_concurrent");
    check("[policies.a]\nmodels = [\"*\"]\ntotal = { tokens_per_minute = 9 }", "policies.a.total.tokens_per_minute");
    for protocol in ["azure", "gemini", "bedrock"] {
        check(
            &format!("[providers.q]\nprotocol = \"{protocol}\"\nbase_url = \"https://x.example\""),
            "providers.q.protocol",
        );
    }
}

#[test]
fn endpoints_follow_what_the_providers_speak() {
    let check = |endpoints: &str, deployments: &[&str], expected: Result<&[Endpoint], &str>| {
        let deployments: Vec<String> = deployments.iter().map(|name| format!("{{ provider = \"{name}\" }}")).collect();
        let text = format!(
            "providers.s.protocol = \"sim\"\nproviders.p = {{ protocol = \"openai\", base_url = \"https://a.example/v1\" }}\nproviders.q = {{ protocol = \"anthropic\", base_url = \"https://a.example\" }}\n\
             [models.x]\n{endpoints}\ndeployments = [{}]\n",
            deployments.join(", ")
        );
        let source = ConfigSource::File { path: "tierway.toml".into(), text };
        match (load(&source, &TestEnvironment::default(), &[]), expected) {
            (Ok(snapshot), Ok(expected)) => {
                let table = &snapshot.table;
                let served = |endpoint: &Endpoint| {
                    let has = |one: &Deployment| one.endpoints.contains(*endpoint);
                    table.models[0].endpoints.contains(*endpoint) && table.deployments.iter().any(has)
                };
                let served: Vec<Endpoint> = Endpoint::ALL.into_iter().filter(served).collect();
                assert_eq!(served, expected, "{endpoints}");
            }
            (Err(problems), Err(expected)) => {
                let text = problems.to_string();
                assert!(text.contains(expected), "{endpoints}: {text}");
            }
            (found, _) => panic!("{endpoints}: {:?}", found.map(drop).map_err(|problems| problems.to_string())),
        }
    };
    use Endpoint::{Chat, CountTokens, Embeddings, Messages};
    check("", &["p"], Ok(&[Chat]));
    check("", &["s"], Ok(&[Chat, Messages, CountTokens]));
    check("", &["q"], Ok(&[Messages, CountTokens]));
    check("", &["p", "q"], Ok(&[Chat, Messages, CountTokens]));
    check("endpoints = [\"messages\"]", &["q"], Ok(&[Messages, CountTokens]));
    check("endpoints = [\"chat\", \"embeddings\"]", &["p"], Ok(&[Chat, Embeddings]));
    check("endpoints = [\"chat\", \"messages\"]", &["p", "q"], Ok(&[Chat, Messages, CountTokens]));
    check("endpoints = [\"messages\"]", &["p"], Err("no provider of this model has `messages`"));
    check("endpoints = [\"chat\"]", &["p", "q"], Err("the provider `q` has none of this model's endpoints"));
    check("endpoints = [\"count_tokens\"]", &["q"], Err("one of: chat, completions, embeddings, messages"));
}

#[test]
fn the_least_that_loads_has_every_default() {
    let snapshot = loaded(LEAST, &TestEnvironment::default());
    assert_eq!(snapshot.server.listen.to_string(), "127.0.0.1:8080");
    assert!(snapshot.server.admin_token.is_none());
    assert!(snapshot.store.location == StoreLocation::Sqlite("tierway.db".into()));
    assert!(snapshot.store.retention.is_none());
    assert!(snapshot.unenforced.is_empty());
    insta::assert_snapshot!(snapshot.effective.to_toml());
}

#[test]
fn the_demo_serves_everything_the_explanation_needs() {
    let key = ExtraKey { name: "demo".to_owned(), hash: KeyHash::of("tw_demo_x") };
    let snapshot = load(&ConfigSource::Demo, &TestEnvironment::default(), &[key]).unwrap_or_else(|p| panic!("{p}"));
    assert!(snapshot.unenforced.is_empty(), "{:?}", snapshot.unenforced);
    assert!(snapshot.providers.iter().all(|provider| matches!(provider.kind, ProviderTransport::Sim(_))));
    let table = &snapshot.table;
    let regions: Vec<&str> = table.regions.iter().map(|region| &**region).collect();
    assert_eq!(regions, ["us-east", "eu-central", "ap-south"]);
    let dedicated = table.deployments.iter().find(|d| d.capacity == Capacity::Dedicated);
    let name = dedicated.map(|deployment| &*deployment.name);
    assert_eq!(name, Some("sim-eu/Pro/deepseek-ai/DeepSeek-V3.2"));
    let shares: Vec<u32> = table.aliases[0].split.iter().map(|(_, share)| *share).collect();
    assert_eq!(shares, [80, 15, 5]);
    let record = snapshot.key(&KeyHash::of("tw_demo_x")).expect("the key was given");
    assert!(record.policy.reserved);
    assert!(table.names.values().all(|target| record.policy.allows(table, *target)));
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = TestEnvironment::with_variables(&[
        ("TIERWAY__SERVER__LISTEN", "0.0.0.0:9000"),
        ("TIERWAY__SERVER__ADMIN_TOKEN", "canary-token"),
        ("TIERWAY__ROUTING__MAX_ATTEMPTS", "5"),
        ("TIERWAY__ROUTING__BREAKER__WINDOW", "1m"),
    ]);
    let text = format!("{LEAST}[server]\nlisten = \"127.0.0.1:1\"\n");
    let snapshot = loaded(&text, &environment);
    assert_eq!(snapshot.server.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(snapshot.table.settings.max_attempts, 5);
    assert_eq!(snapshot.table.settings.breaker.window.as_secs(), 60);
    let token = snapshot.server.admin_token.as_ref().map(|token| token.expose());
    assert_eq!(token, Some("canary-token"));
    let shown = snapshot.effective.to_toml();
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("# env TIERWAY__SERVER__LISTEN"), "{shown}");
}

#[test]
fn what_is_pointed_to_is_read_and_never_shown() {
    let mut environment = TestEnvironment::with_variables(&[("REGION", "canary-region")]);
    environment.files.insert("/run/credential", "canary-credential\n");
    let text = "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1/\"\n\
                credential = \"file:/run/credential\"\nregion = \"env:REGION\"\n\
                [models.m]\ndeployments = [{ provider = \"p\" }]\n";
    let snapshot = loaded(text, &environment);
    assert_eq!(&*snapshot.table.regions[0], "canary-region");
    let ProviderTransport::Network(network) = &snapshot.providers[0].kind else {
        panic!("not simulated");
    };
    assert_eq!(network.base_url, "https://x.example/v1");
    assert_eq!(network.credentials[0].secret.expose(), "canary-credential");
    assert_eq!(&*network.credentials[0].name, "file:/run/credential");
    let shown = format!("{}{}", snapshot.effective.to_toml(), snapshot.effective.to_json());
    assert!(!shown.contains("canary") && shown.contains(MASK), "{shown}");
    // Region names are no secrets of the domain; credentials are.
    assert!(!format!("{snapshot:?}").contains("canary-credential"));
}

#[test]
fn authorities_and_a_proxy_are_read_and_never_shown() {
    let issued = rcgen::generate_simple_self_signed(["x.example".to_owned()]).expect("rcgen can sign");
    let mut environment = TestEnvironment::with_variables(&[("PROXY", "http://me:canary@proxy.example:3128")]);
    environment.files.insert("/etc/ca.pem", issued.cert.pem().leak());
    let text = |scheme: &str| {
        format!(
            "[providers.p]\nprotocol = \"openai\"\nbase_url = \"{scheme}://x.example/v1\"\nca = \"file:/etc/ca.pem\"\n\
             proxy = \"env:PROXY\"\n[models.m]\ndeployments = [{{ provider = \"p\" }}]\n"
        )
    };
    let snapshot = loaded(&text("https"), &environment);
    let ProviderTransport::Network(network) = &snapshot.providers[0].kind else { panic!("not simulated") };
    assert_eq!(network.ca.as_deref(), Some(&[issued.cert.der().clone()][..]));
    let proxy = network.proxy.as_ref().map(tierway::domain::secret::Secret::expose);
    assert_eq!(proxy, Some("http://me:canary@proxy.example:3128"));
    let shown = format!("{}{}{snapshot:?}", snapshot.effective.to_toml(), snapshot.effective.to_json());
    assert!(!shown.contains("canary"), "{shown}");
    // A host without TLS shows no certificate.
    let problems = load(&source(&text("http")), &environment, &[]).expect_err("there is nothing to trust");
    let said: Vec<&str> = problems.iter().map(|problem| problem.setting.as_str()).collect();
    assert_eq!(said, ["providers.p.ca"]);
}

#[test]
fn the_effective_configuration_reads_as_a_file() {
    let environment = TestEnvironment::of_the_examples();
    let snapshot = loaded(DESIGN_EXAMPLE, &environment);
    let shown = snapshot.effective.to_toml();
    assert!(!shown.contains("canary"), "{shown}");
    insta::assert_snapshot!(shown);
    // It is TOML with the same tables: only the masked secrets keep it from loading.
    let problems = load(&source(&shown), &environment, &[]).expect_err("the secrets are masked");
    for problem in problems.iter() {
        assert_eq!(problem.message, "a secret may not be written out in the file");
    }
}

#[test]
fn the_gateways_own_region_is_preferred_where_it_can_serve() {
    let check = |region: &str, expected: Option<&str>| {
        let snapshot = loaded(&format!("{LEAST}[routing]\nregion = \"{region}\"\n"), &TestEnvironment::default());
        let home = snapshot.table.settings.home.map(|id| &**snapshot.table.region(id));
        assert_eq!(home, expected, "{region}");
        assert_eq!(snapshot.table.regions.len(), 1);
    };
    check("us-east", Some("us-east"));
    check("ap-south", None);
}

#[test]
fn keys_carry_their_policy_tightened() {
    let text = format!(
        "{LEAST}[policies.a]\nmodels = [\"m*\"]\nrequests_per_minute = 50\nmax_concurrent = 4\n\
         [[keys]]\nname = \"k\"\nteam = \"t\"\npolicy = \"a\"\nexpires = 2027-01-31\n\
         requests_per_minute = 5\ntokens_per_minute = 7\nsecret = \"env:K\"\n"
    );
    let snapshot = loaded(&text, &TestEnvironment::with_variables(&[("K", "tw_a_secret")]));
    let key = snapshot.key(&KeyHash::of("tw_a_secret")).expect("the key is configured");
    assert_eq!((&*key.name, key.team.as_deref()), ("k", Some("t")));
    assert_eq!(key.limits.requests_per_minute, Some(5));
    assert_eq!(key.limits.tokens_per_minute, Some(7));
    assert_eq!(key.limits.max_concurrent, Some(4));
    assert_eq!(key.expires, Some(1_801_440_000));
    assert!(snapshot.policy("a").is_some_and(|policy| policy.limits.tokens_per_minute.is_none()));
}

#[test]
fn a_price_has_token_classes_and_thresholds() {
    let text = format!(
        "{LEAST}[models.x]\nprice = {{ input = \"1\", output = \"2\", cache_write = \"1.25\", audio_output = \"9\", \
         above = [{{ tokens = 100, input = \"3\", cache_write = \"4\" }}, {{ tokens = 200, output = \"5\" }}] }}\n\
         deployments = [{{ provider = \"p\" }}]\n"
    );
    let snapshot = loaded(&text, &TestEnvironment::default());
    let model = snapshot.table.models.iter().find(|model| &*model.name == "x").expect("it is configured");
    let version = model.price.as_ref().expect("it has a price").at(0);
    let expected = "1/2,cache_write=1.25,audio_output=9 >100=3/2,cache_write=4,audio_output=9 \
                    >200=1/5,cache_write=1.25,audio_output=9";
    assert_eq!(&*version.version, expected);
}

#[test]
fn a_catalogue_fills_what_the_file_does_not_say() {
    let text = "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://api.openai.com/v1\"\n\
                [models.mine]\nmax_output = 5\ndeployments = [{ provider = \"p\", upstream_model = \"gpt-4o-2024-08-06\" }]\n\
                [models.gpt-4o]\nprice = { input = \"1\", output = \"1\" }\ndeployments = [{ provider = \"p\" }]\n\
                [policies.a]\nmodels = [\"*\"]\nbudget = { limit = \"5.00\" }\n";
    let snapshot = loaded(text, &TestEnvironment::default());
    let [mine, own] = &snapshot.table.models[..] else { panic!("two models are configured") };
    assert_eq!((mine.context, mine.max_output, own.max_output), (Some(128_000), Some(5), Some(16_384)));
    assert_eq!(mine.image_tokens.map(|image| (image.typical, image.most)), Some((765, 1_445)));
    let prices = snapshot.table.prices(mine.shared[0]).expect("the catalogue knows it");
    assert_eq!(prices.catalogue(), Some(&snapshot.catalogue.as_of.text));
    assert_eq!(snapshot.table.prices(own.shared[0]).expect("the file says it").catalogue(), None);
    let filled: Vec<_> = snapshot.catalogue.models.iter().map(|model| model.filled.join(" ")).collect();
    assert_eq!(filled, ["price context", "context max_output"]);
    assert_eq!(snapshot.catalogue.models[0].entries, ["openai gpt-4o"]);
}

#[test]
fn the_catalogue_knows_the_quirks_of_hosts_and_the_file_knows_better() {
    use tierway::config::{OutputCeiling, ProviderTransport};
    let check = |settings: &str, expected: (OutputCeiling, bool), said: &[&str]| {
        let text = format!(
            "[providers.p]\nprotocol = \"openai\"\n{settings}\n[models.m]\ndeployments = [{{ provider = \"p\" }}]\n"
        );
        let snapshot = loaded(&text, &TestEnvironment::default());
        let ProviderTransport::Network(network) = &snapshot.providers[0].kind else { panic!("it is reached") };
        assert_eq!((network.max_tokens_name, network.stream_options), expected, "{settings}");
        let filled: Vec<_> = snapshot.catalogue.providers.iter().flat_map(|provider| &provider.filled).collect();
        assert_eq!(filled, said, "{settings}");
    };
    let (old, new) = (OutputCeiling::MaxTokens, OutputCeiling::MaxCompletionTokens);
    let [openai, mistral, other] =
        ["api.openai.com", "api.mistral.ai", "p.example"].map(|host| format!("base_url = \"https://{host}/v1\"\n"));
    check(&other, (old, true), &[]);
    check(&openai, (new, true), &["max_tokens_name = \"max_completion_tokens\""]);
    check(&format!("{openai}max_tokens_name = \"max_tokens\""), (old, true), &[]);
    check(&mistral, (old, false), &["stream_options = false"]);
    check(&format!("{mistral}stream_options = true"), (old, true), &[]);
    check(&format!("{other}max_tokens_name = \"max_completion_tokens\"\nstream_options = false"), (new, false), &[]);
}

#[test]
fn an_operators_catalogue_lies_beside_the_configuration() {
    let text = "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://p.example/v1\"\n\
                [models.m]\ndeployments = [{ provider = \"p\" }]\n";
    let catalogue = "as_of = \"2031-01-01\"\nsource = \"x\"\n[hosts.p]\naddress = [\"p.example*\"]\n[hosts.p.models]\n\
                     \"m\" = { context = 77 }\n";
    let mut environment = TestEnvironment::default();
    assert_eq!(loaded(text, &environment).table.models[0].context, None);
    environment.files.insert("tierway.prices.toml", catalogue);
    let snapshot = loaded(text, &environment);
    assert_eq!((snapshot.table.models[0].context, &*snapshot.catalogue.as_of.text), (Some(77), "2031-01-01"));
    // Its models are read when they are asked for: what is wrong there is a problem of the configuration.
    environment.files.insert(
        "tierway.prices.toml",
        "as_of = \"2031-01-01\"\nsource = \"x\"\n[hosts.p]\naddress = [\"p.example*\"]\n[hosts.p.models]\n\"m\" = 5\n",
    );
    let refused = load(&source(text), &environment, &[]).expect_err("the catalogue is broken").to_string();
    assert!(refused.contains("tierway.prices.toml: hosts.p.models.m"), "{refused}");
}

#[test]
fn the_file_is_found_in_order() {
    let mut environment = TestEnvironment::default();
    let check = |named: Option<&str>, environment: &TestEnvironment, expected: &str| {
        let found = find(named.map(Path::new), environment).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(found.name(), expected);
    };
    check(None, &environment, "built-in demo");
    environment.files.insert("/etc/tierway/tierway.toml", "");
    check(None, &environment, "/etc/tierway/tierway.toml");
    environment.files.insert("./tierway.toml", "");
    check(None, &environment, "./tierway.toml");
    environment.files.insert("/by-variable.toml", "");
    environment.variables.insert("TIERWAY_CONFIG", "/by-variable.toml");
    check(None, &environment, "/by-variable.toml");
    environment.files.insert("/named.toml", "");
    check(Some("/named.toml"), &environment, "/named.toml");
    let problems = find(Some(Path::new("/missing.toml")), &environment).expect_err("there is no such file");
    insta::assert_snapshot!("no_such_file", problems.render(false));
}
