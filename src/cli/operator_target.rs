//! A gateway as its operators reach it: from the command line, and from the configuration where that does not say it all.
//!
//! Start reading at [`OperatorTargetArgs::client`].

use super::gateway_client::{GatewayClient, GatewayUrl};
use super::store::CommandError;
use super::{ConfigArgs, find_config};
use crate::config::{ProcessEnvironment, Snapshot, load};
use crate::domain::secret::Secret;
use clap::Args;

/// Which gateway is asked, and with which token.
#[derive(Args, Debug)]
pub(super) struct OperatorTargetArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Where the gateway serves operators, or unix:/path [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<GatewayUrl>,
    /// The admin token or the viewer token [default: the one in the configuration]
    #[arg(long, value_name = "TOKEN", env = "TIERWAY_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl OperatorTargetArgs {
    /// What asks the gateway; `changes`: something is to be changed, for which a viewer's token is not enough.
    ///
    /// # Errors
    /// What is missing, and where to write it.
    pub(super) fn client(&self, changes: bool) -> Result<GatewayClient, CommandError> {
        if let (Some(url), Some(token)) = (&self.url, &self.token) {
            return Ok(GatewayClient::new(url.clone(), Secret::new(token.as_str()), None));
        }
        let path = self.config_args.config.as_deref();
        let snapshot = find_config(path).and_then(|source| load(&source, &ProcessEnvironment, &[]));
        let snapshot = snapshot.map_err(|problems| {
            let help = "  help: run this where the gateway runs, or give --url and TIERWAY_ADMIN_TOKEN";
            CommandError::configuration(format!("{}\n{help}", problems.render(true).trim_end()))
        })?;
        let server = &snapshot.server;
        let given = self.token.as_deref().map(Secret::new);
        let viewer = server.viewer_token.clone().filter(|_| !changes);
        let token = given.or(viewer).or_else(|| server.admin_token.clone());
        let token = token.ok_or_else(|| {
            CommandError::failed(
                "the configuration has no admin token\n  help: put the one that the gateway printed at its start into \
                 TIERWAY_ADMIN_TOKEN",
            )
        })?;
        let known =
            server.tls.as_ref().and_then(|tls| tls.certified.cert.first()).map(|known| known.clone().into_owned());
        let url = self.url.clone().map_or_else(|| configured_url(&snapshot), Ok)?;
        Ok(GatewayClient::new(url, token, known))
    }
}

fn configured_url(snapshot: &Snapshot) -> Result<GatewayUrl, CommandError> {
    let server = &snapshot.server;
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    GatewayUrl::of(scheme, server.admin_listen.as_ref().unwrap_or(&server.listen)).ok_or_else(|| {
        CommandError::failed(
            "the configuration lets the system choose the port\n  help: --url names the address that the gateway \
             printed",
        )
    })
}
