//! A gateway as its clients reach it: from the command line and the environment, and from the configuration where these do
//! not say it all.
//!
//! Start reading at [`ClientArgs::target`].

use super::gateway_client::{GatewayClient, GatewayClientError, GatewayUrl};
use super::store::CommandError;
use super::{ConfigArgs, find_config};
use crate::config::{Environment, ProcessEnvironment, Snapshot, load};
use crate::domain::secret::Secret;
use clap::Args;
use rustls::pki_types::CertificateDer;

/// Which gateway is asked, and with which key.
#[derive(Args, Debug)]
pub(super) struct ClientArgs {
    /// Where the gateway serves clients, or unix:/path [default: OPENAI_BASE_URL, else the address in the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<GatewayUrl>,
    /// A key [default: OPENAI_API_KEY, where OPENAI_BASE_URL is set]
    #[arg(long, value_name = "KEY", env = "TIERWAY_API_KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    config_args: ConfigArgs,
}

/// A gateway to ask.
pub(super) struct ClientTarget {
    /// What asks it.
    pub(super) client: GatewayClient,
    /// What goes before the path of an endpoint, where the address does not have it.
    pub(super) prefix: &'static str,
    /// Whether another gateway than that of the configuration may be meant.
    pub(super) is_named: bool,
}

impl ClientArgs {
    /// Whether a gateway or a key is named.
    ///
    /// # Errors
    /// A base URL of the environment that is none.
    pub(super) fn names_one(&self) -> Result<bool, CommandError> {
        Ok(self.key.is_some() || self.named_url()?.is_some())
    }

    /// The gateway.
    ///
    /// # Errors
    /// What is missing, and where to write it.
    pub(super) fn target(&self) -> Result<ClientTarget, CommandError> {
        let named = self.named_url()?;
        // A key for another host is not sent to this one.
        let beside_url = || variable("OPENAI_API_KEY").filter(|_| self.url.is_none() && named.is_some());
        let key = self.key.clone().or_else(beside_url).ok_or_else(|| {
            CommandError::usage(
                "there is no key to ask with\n  help: --key, or TIERWAY_API_KEY; `serve` prints the demo's",
            )
        })?;
        let is_named = named.is_some();
        let (url, known) = match named {
            Some(url) => (url, None),
            None => configured(&self.configuration()?)?,
        };
        let prefix = if url.url.path().trim_end_matches('/').ends_with("/v1") { "" } else { "/v1" };
        Ok(ClientTarget { client: GatewayClient::new(url, Secret::new(key), known), prefix, is_named })
    }

    /// The configuration that the gateway is looked for in.
    ///
    /// # Errors
    /// Its problems.
    pub(super) fn configuration(&self) -> Result<Snapshot, CommandError> {
        let source = find_config(self.config_args.config.as_deref());
        let snapshot = source.and_then(|source| load(&source, &ProcessEnvironment, &[]));
        snapshot.map_err(|problems| {
            let help = "  help: run this where the gateway runs, or give --url, --key and --model";
            CommandError::configuration(format!("{}\n{help}", problems.render(true).trim_end()))
        })
    }

    /// The path of the configuration, if it was given.
    pub(super) fn config(&self) -> Option<&std::path::Path> {
        self.config_args.config.as_deref()
    }

    fn named_url(&self) -> Result<Option<GatewayUrl>, CommandError> {
        match (&self.url, variable("OPENAI_BASE_URL")) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(url)) => {
                let read = url.parse().map_err(|why: String| CommandError::usage(format!("OPENAI_BASE_URL: {why}")));
                read.map(Some)
            }
            (None, None) => Ok(None),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    ProcessEnvironment.variable(name).filter(|value| !value.is_empty())
}

fn configured(snapshot: &Snapshot) -> Result<(GatewayUrl, Option<CertificateDer<'static>>), CommandError> {
    let server = &snapshot.server;
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let url = GatewayUrl::of(scheme, &server.listen).ok_or_else(|| {
        CommandError::usage(
            "the configuration lets the system choose the port\n  help: --url names the address that the gateway printed",
        )
    })?;
    let known = server.tls.as_ref().and_then(|tls| tls.certified.cert.first());
    Ok((url, known.map(|known| known.clone().into_owned())))
}

/// Why a gateway did not answer a client.
pub(super) fn unanswered(url: &GatewayUrl, error: &GatewayClientError) -> CommandError {
    let why = match error {
        GatewayClientError::Unreachable(why) => why.clone(),
        GatewayClientError::Token => "it refuses the key".to_owned(),
        GatewayClientError::Status(status) => format!("it answers {status}"),
    };
    CommandError::failed(format!(
        "no gateway answers at {url}: {why}\n  help: is it running (`tierway serve`)? --url names another address"
    ))
}
