//! Which members of a body a provider may not be sent, and which change its price: the defaults for the kind of its
//! host, and what its section says.
//!
//! Start reading in [`body_rules`].

use std::sync::Arc;

use super::super::catalogue::PriceCatalogue;
use super::super::reader::Setting;
use super::super::sections::ProviderSection;
use super::super::settings::ProtocolName;
use super::super::value::BodyMemberName;
use crate::domain::body_member::BodyRules;

/// By this, programs in JavaScript that copy a body may take any other member from it.
const ANY_OTHER: &str = "__proto__";

/// By these, hosts that pass requests on (other gateways, markets of models) choose the model, the host or the
/// credential: no key's policy and no budget would count.
const CHOOSE_A_HOST: [&str; 41] = [
    "api_base",
    "api_key",
    "api_type",
    "api_version",
    "aws_access_key_id",
    "aws_bedrock_runtime_endpoint",
    "aws_profile_name",
    "aws_region_name",
    "aws_role_name",
    "aws_secret_access_key",
    "aws_session_name",
    "aws_session_token",
    "aws_sts_endpoint",
    "aws_web_identity_token",
    "azure_ad_token",
    "base_url",
    "client_secret",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "custom_llm_provider",
    "default_fallbacks",
    "deployment_id",
    "endpoint",
    "extra_headers",
    "fallback",
    "fallbacks",
    "model_list",
    "models",
    "organization",
    "preset",
    "provider",
    "provideroptions",
    "providers",
    "region_name",
    "route",
    "routing",
    "user_config",
    "vertex_credentials",
    "vertex_location",
    "vertex_project",
];

/// These change what an answer costs, by a factor or by the search, the file or the conversation that is added to it.
const CHANGE_THE_PRICE: [&str; 21] = [
    "cached_content",
    "container",
    "context_management",
    "conversation",
    "conversation_id",
    "data_sources",
    "enable_search",
    "extra_body",
    "file_ids",
    "inference_geo",
    "mcp_servers",
    "plugins",
    "previous_response_id",
    "search_options",
    "search_parameters",
    "search_type",
    "service_tier",
    "speed",
    "tools[].type",
    "web_search",
    "web_search_options",
];

/// By these, Anthropic's API answers with another model than was asked for, or goes on with what is kept under an id at
/// the account that all keys share.
const BEYOND_THE_KEY: [&str; 3] = ["container", "fallbacks", "thread"];

/// The rules of `provider`. A simulated one knows no other member than the gateway.
pub(super) fn body_rules(provider: &ProviderSection, catalogue: &PriceCatalogue) -> BodyRules {
    let Some(network) = &provider.network else { return BodyRules::default() };
    // A host that nobody knows may pass requests on.
    let passes_on = network.base_url.as_ref().is_none_or(|base_url| {
        let known = catalogue.hosts_at(&base_url.value.0);
        known.is_empty() || known.iter().any(|host| host.quirks.passes_on == Some(true))
    });
    let own = |list: &Option<Vec<Setting<BodyMemberName>>>| -> Vec<Arc<str>> {
        list.iter().flatten().map(|name| name.value.0.clone()).collect()
    };
    let (allowed, denied) = (own(&network.body_allow), own(&network.body_deny));
    let defaults = |list: &[&str]| -> Vec<Arc<str>> {
        let names = list.iter().map(|name| Arc::from(*name));
        names.filter(|name| !allowed.contains(name) && !denied.contains(name)).collect()
    };
    let priced = defaults(&CHANGE_THE_PRICE);
    let mut all_denied = if passes_on { defaults(&CHOOSE_A_HOST) } else { Vec::new() };
    all_denied.extend(defaults(&[ANY_OTHER]));
    let is_anthropic = provider.common.protocol.as_ref().is_some_and(|one| one.value == ProtocolName::Anthropic);
    if is_anthropic {
        all_denied.extend(defaults(&BEYOND_THE_KEY));
    }
    all_denied.extend(denied);
    BodyRules { denied: all_denied, priced }
}
