//! Files over HTTP.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ringwire::{App, Files, Request};

use crate::common::raw::Response;
use crate::rig::{Served, serve};

/// A directory that is gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("ringwire-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ask(served: &Served, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut client = served.raw();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes());
    client.response(method == "HEAD")
}

fn site(scratch: &Scratch) -> Served {
    let public = scratch.0.join("public");
    scratch.write("secret.txt", "secret");
    scratch.write("public/index.html", "<h1>root</h1>");
    scratch.write("public/a b.txt", "0123456789");
    scratch.write("public/sub/index.html", "sub");
    scratch.write("public/app.js", "let x;");
    scratch.write("public/.env", "hidden");
    scratch.write("public/big.bin", &"x".repeat(2000));
    symlink("../secret.txt", public.join("out.txt")).expect("a link");
    symlink(".env", public.join("env.txt")).expect("a link");
    symlink("app.js", public.join("link.js")).expect("a link");
    serve(move || {
        let files = Files::dir(&public).cache_control("max-age=60").max_bytes(1000);
        let embedded =
            Files::embedded([("index.html", b"built in".as_slice()), ("a/b.css", b"p {}"), ("a/index.html", b"a")]);
        App::new().files("/s", files).files("/", embedded).get("/s/named", async |_: Request| "a route")
    })
}

/// Kills: files outside of the directory, and what is not told of those inside.
#[test]
fn files_of_a_directory_and_of_the_program() {
    let scratch = Scratch::new("files");
    let served = site(&scratch);
    for (path, body, kind) in [
        ("/s", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/s/", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/s/index.html", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/s/a%20b.txt", "0123456789", "text/plain; charset=utf-8"),
        ("/s/sub", "sub", "text/html; charset=utf-8"),
        ("/s/sub/", "sub", "text/html; charset=utf-8"),
        ("/s/app.js", "let x;", "text/javascript; charset=utf-8"),
        ("/s/link.js", "let x;", "text/javascript; charset=utf-8"),
        ("/s/named", "a route", "text/plain; charset=utf-8"),
        ("/", "built in", "text/html; charset=utf-8"),
        ("/a/b.css", "p {}", "text/css; charset=utf-8"),
        ("/a", "a", "text/html; charset=utf-8"),
    ] {
        let response = ask(&served, "GET", path, &[]);
        assert_eq!(
            (response.status, response.body.as_str(), response.header("content-type")),
            (200, body, Some(kind)),
            "{path}"
        );
        if path != "/s/named" {
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert!(response.header("etag").is_some(), "{path}");
            assert_eq!(response.header("cache-control"), path.starts_with("/s").then_some("max-age=60"), "{path}");
            assert_eq!(response.header("last-modified").is_some(), path.starts_with("/s"), "{path}");
            let head = ask(&served, "HEAD", path, &[]);
            let len = body.len().to_string();
            assert_eq!(
                (head.status, head.body.as_str(), head.header("content-length")),
                (200, "", Some(&*len)),
                "{path}"
            );
        }
    }
    for path in [
        "/s/none",
        "/s/out.txt",
        "/s/.env",
        "/s/env.txt",
        "/s/../secret.txt",
        "/s/%2e%2e/secret.txt",
        "/s/..%2fsecret.txt",
        "/s/sub/%2E%2E/%2E%2E/secret.txt",
        "/s/%00",
        "/s//etc/passwd",
        "/s/a%5cb",
        "/b",
        "/a/b",
        "/s/app.js/x",
    ] {
        assert_eq!(ask(&served, "GET", path, &[]).status, 404, "{path}");
    }
    assert_eq!(ask(&served, "POST", "/s/app.js", &[("Content-Length", "0")]).status, 405);
    assert_eq!(ask(&served, "GET", "/s/big.bin", &[]).status, 413);
    assert_eq!(ask(&served, "GET", "/s/big.bin", &[("Range", "bytes=0-999")]).body.len(), 1000);
}

/// Kills: conditions and ranges that are not looked at (RFC 9110 13 and 14).
#[test]
fn conditions_and_ranges() {
    let scratch = Scratch::new("ranges");
    let served = site(&scratch);
    let path = "/s/a%20b.txt";
    let whole = ask(&served, "GET", path, &[]);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let tag = whole.header("etag").expect("a tag").to_owned();
    let date = whole.header("last-modified").expect("a date").to_owned();
    let long_ago = "Thu, 01 Jan 1970 00:00:00 GMT";
    let weak = format!("W/{tag}, \"other\"");
    for (fields, status, body, range) in [
        (&[("If-None-Match", &*tag)][..], 304, "", None),
        (&[("If-None-Match", &*weak)], 304, "", None),
        (&[("If-None-Match", "*")], 304, "", None),
        (&[("If-None-Match", "\"other\"")], 200, "0123456789", None),
        (&[("If-Modified-Since", &*date)], 304, "", None),
        (&[("If-Modified-Since", long_ago)], 200, "0123456789", None),
        (&[("If-Modified-Since", "soon")], 200, "0123456789", None),
        (&[("If-Modified-Since", &*date), ("If-None-Match", "\"other\"")], 200, "0123456789", None),
        (&[("Range", "bytes=2-4")], 206, "234", Some("bytes 2-4/10")),
        (&[("Range", "bytes=-2")], 206, "89", Some("bytes 8-9/10")),
        (&[("Range", "bytes=10-")], 416, "", Some("bytes */10")),
        (&[("Range", "bytes=0-1,4-5")], 200, "0123456789", None),
        (&[("Range", "bytes=2-4"), ("If-Range", &*tag)], 206, "234", Some("bytes 2-4/10")),
        (&[("Range", "bytes=2-4"), ("If-Range", &*date)], 206, "234", Some("bytes 2-4/10")),
        (&[("Range", "bytes=2-4"), ("If-Range", "\"other\"")], 200, "0123456789", None),
        (&[("Range", "bytes=2-4"), ("If-Range", long_ago)], 200, "0123456789", None),
        (&[("Range", "bytes=2-4"), ("If-None-Match", &*tag)], 304, "", None),
    ] {
        let response = ask(&served, "GET", path, fields);
        assert_eq!(
            (response.status, &*response.body, response.header("content-range")),
            (status, body, range),
            "{fields:?}"
        );
        assert_eq!(response.header("etag"), Some(&*tag), "{fields:?}");
    }
    assert_eq!(ask(&served, "GET", "/a/b.css", &[("Range", "bytes=0-0")]).body, "p");
    // A file that is another is known for it.
    scratch.write("public/a b.txt", "9876543210");
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(scratch.0.join("public/a b.txt"))
        .and_then(|file| file.set_modified(later))
        .expect("touched");
    assert_eq!(ask(&served, "GET", path, &[("If-None-Match", &tag)]).body, "9876543210");
}
