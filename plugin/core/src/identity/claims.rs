//! From claims to the parts of a principal.

use std::collections::BTreeMap;

use toolgate_protocol::json::Json;

use super::challenge::Refused;
use crate::config::ClaimsConfig;

/// Most claims that become tags of a principal, and the longest of them in bytes. What is beyond is
/// left out: a policy that asks for it finds no tag.
const MOST_TAGS: usize = 64;
const LONGEST_TAG: usize = 4096;

/// Most scopes of one token; what is beyond is left out, so that it permits nothing.
const MOST_SCOPES: usize = 256;

/// The value at a JSON pointer (RFC 6901) through objects.
pub(super) fn pointed<'a>(claims: &'a Json, pointer: &str) -> Option<&'a Json> {
    pointer
        .strip_prefix('/')?
        .split('/')
        .try_fold(claims, |value, token| value.get(&token.replace("~1", "/").replace("~0", "~")))
}

/// A claim that must be an array of strings where it is there.
pub(super) fn names(claims: &Json, pointer: &str) -> Result<Vec<String>, Refused> {
    let wrong =
        || Refused::invalid(format!("the token's claim {pointer} is not an array of strings"));
    match pointed(claims, pointer) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The first text that one of the pointers leads to.
pub(super) fn first_text(claims: &Json, pointers: &[String]) -> Option<String> {
    pointers.iter().find_map(|pointer| pointed(claims, pointer)?.as_str().map(str::to_owned))
}

/// Scopes as one string (RFC 9068 section 2.2.3) or as an array (`scp` of some issuers).
pub(super) fn scopes(claims: &Json, pointers: &[String]) -> Vec<String> {
    let found = pointers.iter().find_map(|pointer| pointed(claims, pointer));
    let scopes: Vec<&str> = match found {
        Some(Json::String(scopes)) => scopes.split(' ').filter(|s| !s.is_empty()).collect(),
        Some(Json::Array(scopes)) => scopes.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    scopes.into_iter().take(MOST_SCOPES).map(Into::into).collect()
}

/// Claims as text: those that are configured by name, then those of the first level.
pub(super) fn tags(claims: &Json, config: &ClaimsConfig) -> BTreeMap<String, String> {
    let configured = config
        .tags
        .iter()
        .filter_map(|(name, pointer)| Some((name.as_str(), pointed(claims, pointer)?)));
    let first_level = claims.as_object().into_iter().flat_map(|claims| claims.iter());
    let mut tags = BTreeMap::new();
    for (name, value) in configured.chain(first_level) {
        if tags.len() >= MOST_TAGS {
            break;
        }
        if let Some(text) = text(value)
            && text.len() <= LONGEST_TAG
            && name.len() <= LONGEST_TAG
        {
            // What is configured comes first and stays.
            tags.entry(name.to_owned()).or_insert(text);
        }
    }
    tags
}

/// Strings as they are, everything else as JSON; null is no claim.
pub(super) fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => String::from_utf8(other.to_bytes()).ok(),
    }
}
