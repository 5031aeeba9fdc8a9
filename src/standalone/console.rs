//! `/`: a page to try the server with, in one file and without a byte from elsewhere.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, StatusCode};

use crate::app::request::Request;
use crate::app::response::Response;

const PAGE: &str = include_str!("console.html");

/// Only the page's own script and style, which are named by their hashes, and only this server.
const POLICY: &str = "default-src 'none'; script-src 'sha256-0lhhBHrkmhjwEukn8U/zGD8J2xIGAi/gXpeklr8Ee4o='; style-src 'sha256-UY2ppBC/QhVVLKuJA7eNmResPHLTkaut3X47ethJwE8='; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn page(request: Request) -> Response {
    let tag = tag();
    let known = request.header(IF_NONE_MATCH).is_some_and(|known| known == "*" || known.contains(&tag));
    let response = if known { Response::new(StatusCode::NOT_MODIFIED) } else { Response::html(PAGE) };
    let fixed: [(HeaderName, &'static str); 4] = [
        // It may be kept, but is asked for again: another version of the program may be serving by then.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let response =
        HeaderValue::from_str(&tag).into_iter().fold(response, |response, tag| response.with_header(ETAG, tag));
    fixed
        .into_iter()
        .fold(response, |response, (name, value)| response.with_header(name, HeaderValue::from_static(value)))
}

/// The page's entity tag (RFC 9110 8.8.3), the same in all processes of one build.
fn tag() -> String {
    let mut hasher = DefaultHasher::new();
    PAGE.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What stands between the page's only two tags of this name.
    fn content(tag: &str) -> &'static str {
        let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!((PAGE.matches(&start).count(), PAGE.matches(&end).count()), (1, 1), "one {tag}");
        let rest = PAGE.split_once(&start).expect("a start").1;
        rest.split_once(&end).expect("an end").0
    }

    #[test]
    fn the_policy_allows_what_the_page_has() {
        for tag in ["script", "style"] {
            let hash = BASE64.encode(&Sha256::digest(content(tag)));
            let allowed = format!("{tag}-src 'sha256-{hash}'");
            assert!(POLICY.contains(&allowed), "{allowed}");
        }
    }

    #[test]
    fn the_page_is_whole_and_small() {
        assert!(PAGE.len() < 56 << 10, "{} bytes", PAGE.len());
        let page = PAGE.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [" style=", " onclick=", "src=", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for forbidden in ["@import", "url("] {
            assert!(!content("style").contains(forbidden), "{forbidden}");
        }
    }
}
