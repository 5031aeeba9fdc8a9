//! `/`, as far as it is HTTP.

use crate::ask_with;
use crate::common::TestServer;

#[test]
fn the_page_comes_with_a_strict_policy() {
    let server = TestServer::new();
    let page = ask_with(&server, "GET", "/", &[], "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.starts_with("<!doctype html>") && page.body.trim_end().ends_with("</html>"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let head = ask_with(&server, "HEAD", "/", &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));
}

#[test]
fn a_page_that_is_known_is_not_sent_again() {
    let server = TestServer::new();
    let page = ask_with(&server, "GET", "/", &[], "");
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let tag = page.header("etag").expect("a tag");
    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = ask_with(&server, "GET", "/", &[("If-None-Match", &known)], "");
        assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(tag)), "{known}");
    }
    assert_eq!(ask_with(&server, "GET", "/", &[("If-None-Match", "\"other\"")], "").status, 200);
}
