//! Checks of `Host` and `Origin` on a loopback address, so that no web page in a browser on this machine can use the
//! server.
//!
//! A web page may send requests to any address. Its host is in `Origin`, and in `Host` too if its name was made to
//! resolve to this machine. A server on another address needs a key, which no page has.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::ServerSettings;
use super::refusal::Refusal;

/// Rejects a request whose `Host` is not this server's, or whose `Origin` is a page of another server.
pub(super) fn check(settings: &ServerSettings, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    if !settings.address.ip().is_loopback() && settings.host_names.is_empty() {
        return Ok(());
    }
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let is_named = |name: &str| is_local(name) || settings.host_names.iter().any(|own| own.eq_ignore_ascii_case(name));
    let (host, name) = match uri.authority() {
        Some(authority) => (authority.to_string(), Some(bare(authority.host()).to_owned())),
        None => {
            let host = text(HOST).unwrap_or_default();
            let name = host.parse::<Authority>().ok().map(|authority| bare(authority.host()).to_owned());
            (host, name)
        }
    };
    // Unlike a name, an address cannot be made to resolve to this machine.
    if !name.is_some_and(|name| is_named(&name) || name.parse::<IpAddr>().is_ok()) {
        return Err(forbidden("Host", "localhost, an address or a name given by --host-name", &host));
    }
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let name = origin.parse::<Uri>().ok().and_then(|uri| uri.host().map(|host| bare(host).to_owned()));
    if !name.is_some_and(|name| is_named(&name)) {
        return Err(forbidden("Origin", "a page of localhost or of a name given by --host-name", &origin));
    }
    Ok(())
}

fn forbidden(header: &str, allowed: &str, given: &str) -> Refusal {
    Refusal::field(header, allowed, serde_json::Value::from(given)).with_status(StatusCode::FORBIDDEN)
}

/// A host without the brackets of IPv6.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether a name or address always refers to this machine, whatever DNS says.
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Limits;
    use super::*;

    fn settings(address: [u8; 4], host_names: &[&str]) -> ServerSettings {
        let second = Duration::from_secs(1);
        let limits = Limits {
            batch: 1,
            queue: 1,
            cache_tokens: 1,
            max_tokens: 1,
            body_bytes: 1,
            answer: second,
            request: second,
            grace: second,
            connections: 1,
            connections_per_address: 1,
        };
        let host_names = host_names.iter().map(ToString::to_string).collect();
        ServerSettings { address: (address, 1).into(), api_key: None, name: String::new(), host_names, limits }
    }

    fn is_answered(settings: &ServerSettings, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(settings, &Uri::from_static("/health"), &headers).is_ok()
    }

    #[test]
    fn a_server_of_this_machine_answers_to_its_own_names_and_addresses_alone() {
        let own = settings([127, 0, 0, 1], &[]);
        for host in ["localhost", "LocalHost:8000", "localhost.:1", "api.localhost", "127.0.0.1:8000", "[::1]:80"] {
            assert!(is_answered(&own, host, None), "{host}");
        }
        assert!(is_answered(&own, "10.0.0.7:8000", None));
        for host in ["evil.example", "localhost.evil.example:8000", "evillocalhost", "", "a b", "127.0.0.1.nip.example"]
        {
            assert!(!is_answered(&own, host, None), "{host}");
        }
        let named = settings([127, 0, 0, 1], &["models.example"]);
        assert!(is_answered(&named, "Models.example:443", Some("https://models.example")));
        assert!(!is_answered(&named, "evil.example", None));
        let uri = Uri::from_static("http://evil.example/health");
        assert!(check(&own, &uri, &HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())])).is_err());
    }

    #[test]
    fn pages_of_this_machine_are_answered_and_those_of_others_are_not() {
        let own = settings([127, 0, 0, 1], &[]);
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8"] {
            assert!(is_answered(&own, "localhost", Some(origin)), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://203.0.113.5", "file://", "http://localhost.evil.example"]
        {
            assert!(!is_answered(&own, "localhost", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_server_beyond_this_machine_has_a_key_and_answers_to_any_name_unless_names_are_given() {
        assert!(is_answered(&settings([0, 0, 0, 0], &[]), "gpu.example", Some("http://page.example")));
        assert!(!is_answered(&settings([0, 0, 0, 0], &["gpu.example"]), "evil.example", None));
    }
}
