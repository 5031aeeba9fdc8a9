//! Files over HTTP: those of a directory, or those that the program has in itself.
//!
//! A directory is read by threads of its own, a few for the whole process, and never by a core: a slow disk delays nobody
//! but who waits for it. A response has its body whole, so a file has a size that it may have; who wants a larger one asks
//! for ranges of it.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError, bounded};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::app::error_http::HttpError;
use crate::app::group::{App, Group};
use crate::app::request::Request;
use crate::app::response::Response;
use crate::guard::guarded;
use crate::runtime::Runtime;

/// Threads that read directories, of the whole process.
const READERS: usize = 2;
/// Reads that wait for them; more are answered with 503.
const WAITING_MAX: usize = 256;
/// Bytes of one response, unless it is said otherwise.
const BYTES_MAX_DEFAULT: u64 = 16 << 20;

/// Files to be served: given to [`Group::files`] or [`App::files`].
///
/// A response has the type that the file's name says, an ETag and, of a directory, Last-Modified; conditional requests and
/// ranges (RFC 9110 13 and 14) are answered by them. `/` and directories are answered with their `index.html`. Names that
/// begin with a dot are not there, nor is anything outside of the directory, by whatever link.
///
/// ```no_run
/// use ringwire::{App, Files};
///
/// const LOGO: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
///
/// App::new()
///     .files("/assets", Files::dir("public").cache_control("max-age=3600"))
///     .files("/", Files::embedded([("index.html", b"<h1>Hello</h1>".as_slice()), ("logo.svg", LOGO)]));
/// ```
#[derive(Clone, Debug)]
pub struct Files {
    source: Source,
    cache_control: Option<HeaderValue>,
    bytes_max: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Dir(Arc<PathBuf>),
    Embedded(Arc<[(String, &'static [u8])]>),
}

/// A file that was found: what is known of it, and the part of it that is wanted.
struct Found {
    name: PathBuf,
    /// Of all of it.
    len: u64,
    tag: String,
    modified: Option<SystemTime>,
    wanted: Wanted,
    content: Bytes,
}

/// What of a file is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A range that it has not.
    Nothing,
    /// It is as the client knows it.
    Known,
}

impl Files {
    /// The files below this directory, as they are when they are asked for.
    ///
    /// ```no_run
    /// use ringwire::{App, Files, Server};
    ///
    /// # fn main() -> ringwire::Result<()> {
    /// // /static/chat.js is the file public/chat.js.
    /// Server::from_env()?.run(|| App::new().files("/static", Files::dir("public")))
    /// # }
    /// ```
    pub fn dir(path: impl Into<PathBuf>) -> Files {
        Files::of(Source::Dir(Arc::new(path.into())))
    }

    /// These files, by their names with `/` between directories, such as `include_bytes!` brings them.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Files};
    ///
    /// const INDEX: &[u8] = b"<h1>Hello</h1>"; // or include_bytes!("index.html")
    ///
    /// let server = TestServer::new(|| App::new().files("/", Files::embedded([("index.html", INDEX)])));
    /// let page = server.get("/").send();
    /// assert_eq!((page.header("content-type"), page.text()), (Some("text/html; charset=utf-8"), "<h1>Hello</h1>"));
    /// ```
    pub fn embedded<N: Into<String>>(files: impl IntoIterator<Item = (N, &'static [u8])>) -> Files {
        let named = |(name, content): (N, &'static [u8])| (name.into(), content);
        Files::of(Source::Embedded(files.into_iter().map(named).collect()))
    }

    fn of(source: Source) -> Files {
        Files { source, cache_control: None, bytes_max: BYTES_MAX_DEFAULT }
    }

    /// The Cache-Control field of responses, such as `max-age=3600`; without one, clients ask again as they see fit.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Files};
    ///
    /// let logo = || Files::embedded([("logo.svg", b"<svg/>".as_slice())]).cache_control("max-age=3600");
    /// let server = TestServer::new(move || App::new().files("/", logo()));
    /// assert_eq!(server.get("/logo.svg").send().header("cache-control"), Some("max-age=3600"));
    /// ```
    ///
    /// # Panics
    /// If it cannot be a field's value.
    #[must_use]
    pub fn cache_control(mut self, value: &str) -> Files {
        self.cache_control = Some(HeaderValue::from_str(value).expect("a field's value"));
        self
    }

    /// Bytes of one response, 16 MiB unless this is called: of a larger file only ranges are served, and the whole is
    /// answered with 413.
    ///
    /// ```
    /// use ringwire::{App, Files};
    ///
    /// // Films are played by ranges, and nobody has all of one in memory.
    /// let app = App::new().files("/films", Files::dir("/srv/films").max_bytes(4 << 20));
    /// ```
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Files {
        self.bytes_max = bytes;
        self
    }

    async fn answer(&self, request: Request, name: &str) -> Result<Response, HttpError> {
        let path = clean(name).ok_or(HttpError::not_found("not found"))?;
        let asked = Asked::of(&request);
        let found = match &self.source {
            Source::Embedded(files) => embedded(files, path, &asked),
            Source::Dir(root) => {
                let (root, bytes_max) = (Arc::clone(root), self.bytes_max);
                blocking(move || read(&root, &path, &asked, bytes_max)).await?
            }
        };
        let found = found.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => {
                HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large: ask for ranges of it")
            }
            _ => HttpError::not_found("not found"),
        })?;
        Ok(self.respond(found))
    }

    fn respond(&self, found: Found) -> Response {
        let Found { name, len, tag, modified, wanted, content } = found;
        let mut response = match &wanted {
            Wanted::Known => Response::new(StatusCode::NOT_MODIFIED),
            Wanted::Nothing => Response::new(StatusCode::RANGE_NOT_SATISFIABLE),
            Wanted::Whole => Response::bytes("", content),
            Wanted::Part(_) => Response::bytes("", content).with_status(StatusCode::PARTIAL_CONTENT),
        };
        let mut fields: Vec<(HeaderName, String)> = vec![(ETAG, tag)];
        if let Some(modified) = modified {
            fields.push((LAST_MODIFIED, httpdate::fmt_http_date(modified)));
        }
        match &wanted {
            Wanted::Known => {}
            Wanted::Nothing => fields.push((CONTENT_RANGE, format!("bytes */{len}"))),
            Wanted::Whole => fields.push((ACCEPT_RANGES, "bytes".to_owned())),
            // RFC 9110 14.4
            Wanted::Part(part) => {
                fields.push((CONTENT_RANGE, format!("bytes {}-{}/{len}", part.start, part.end - 1)));
            }
        }
        if matches!(wanted, Wanted::Whole | Wanted::Part(_)) {
            let kind = mime_guess::from_path(&name).first_or_octet_stream();
            let is_text = kind.type_() == "text" && kind.get_param("charset").is_none();
            response = response.without_header(&CONTENT_TYPE);
            fields.push((CONTENT_TYPE, if is_text { format!("{kind}; charset=utf-8") } else { kind.to_string() }));
        }
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)));
        let fixed = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let cached = self.cache_control.clone().map(|value| (CACHE_CONTROL, value));
        let fields = fields.chain([fixed]).chain(cached);
        fields.fold(response, |response, (name, value)| response.with_header(name, value))
    }
}

/// The conditions of a request, and the range that it asks for.
struct Asked {
    if_none_match: Option<String>,
    if_modified_since: Option<SystemTime>,
    if_range: Option<String>,
    range: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Asked {
        let field = |name: HeaderName| request.header(name).map(str::to_owned);
        let range = field(RANGE).filter(|_| request.method() == Method::GET);
        let date = field(IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(&date).ok());
        Asked { if_none_match: field(IF_NONE_MATCH), if_modified_since: date, if_range: field(IF_RANGE), range }
    }

    fn wanted(&self, len: u64, tag: &str, modified: Option<SystemTime>) -> Wanted {
        // Of a date only whole seconds are told.
        let since = |date: SystemTime| modified.is_some_and(|modified| modified < date + Duration::from_secs(1));
        // RFC 9110 13.2.2: the date counts only where there is no tag.
        let is_known = match &self.if_none_match {
            Some(tags) => tags.trim() == "*" || tags.split(',').any(|it| it.trim().trim_start_matches("W/") == tag),
            None => self.if_modified_since.is_some_and(since),
        };
        if is_known {
            return Wanted::Known;
        }
        // RFC 9110 13.1.5: a range of what it was, or else all of what it is.
        let is_same = self.if_range.as_ref().is_none_or(|known| match httpdate::parse_http_date(known) {
            Ok(date) => modified.map(httpdate::fmt_http_date).is_some_and(|is| is == httpdate::fmt_http_date(date)),
            Err(_) => known == tag,
        });
        match self.range.as_deref().filter(|_| is_same) {
            Some(range) => one_range(range, len),
            None => Wanted::Whole,
        }
    }
}

/// RFC 9110 14.1.2, and 14.2: what is no range, or more than one, may be ignored.
fn one_range(text: &str, len: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let range = match (first, last) {
        ("", last) => number(last).map(|count| len.saturating_sub(count)..len).filter(|range| !range.is_empty()),
        (first, "") => number(first).map(|first| first..len),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(len)),
            _ => return Wanted::Whole,
        },
    };
    match range {
        Some(range) if range.start < range.end => Wanted::Part(range),
        None if first.is_empty() && number(last).is_none() || !first.is_empty() && number(first).is_none() => {
            Wanted::Whole
        }
        _ => Wanted::Nothing,
    }
}

impl Wanted {
    /// Which bytes are sent.
    fn part(&self, len: u64) -> Range<u64> {
        match self {
            Wanted::Whole => 0..len,
            Wanted::Part(part) => part.clone(),
            Wanted::Nothing | Wanted::Known => 0..0,
        }
    }
}

/// The path of a file below a root; `None` for names that nobody may ask for.
fn clean(name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for segment in name.split('/').filter(|segment| !segment.is_empty()) {
        if segment.starts_with('.') || segment.contains(['\\', '\0', ':']) {
            return None;
        }
        path.push(segment);
    }
    path.components().all(|component| matches!(component, Component::Normal(_))).then_some(path)
}

fn embedded(files: &[(String, &'static [u8])], path: PathBuf, asked: &Asked) -> io::Result<Found> {
    let has = |path: &Path| files.iter().find(|(known, _)| Path::new(known) == path).map(|(_, content)| *content);
    let index = path.join("index.html");
    let (name, content) = match (has(&path), has(&index)) {
        (Some(content), _) => (path, content),
        (None, Some(content)) => (index, content),
        (None, None) => return Err(io::ErrorKind::NotFound.into()),
    };
    let (len, tag) = (content.len() as u64, tag(&content));
    let wanted = asked.wanted(len, &tag, None);
    let part = wanted.part(len);
    let content = Bytes::from_static(&content[part.start as usize..part.end as usize]);
    Ok(Found { name, len, tag, modified: None, wanted, content })
}

/// Reads what is wanted of a file. Blocks.
fn read(root: &Path, path: &Path, asked: &Asked, bytes_max: u64) -> io::Result<Found> {
    let root = root.canonicalize()?;
    let mut name = root.join(path).canonicalize()?;
    if name.is_dir() {
        name = name.join("index.html").canonicalize()?;
    }
    // Links may lead anywhere.
    let is_below = name.strip_prefix(&root).is_ok_and(|path| {
        path.components().all(|component| !component.as_os_str().as_encoded_bytes().starts_with(b"."))
    });
    let about = name.metadata()?;
    if !is_below || !about.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut file = File::open(&name)?;
    let about = file.metadata()?;
    let (len, modified) = (about.len(), about.modified().ok());
    let tag = tag(&(len, modified));
    let wanted = asked.wanted(len, &tag, modified);
    let part = wanted.part(len);
    let wanted_bytes = part.end - part.start;
    if wanted_bytes > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.seek(SeekFrom::Start(part.start))?;
    let mut content = Vec::with_capacity(wanted_bytes as usize);
    file.take(wanted_bytes).read_to_end(&mut content)?;
    // It has become shorter meanwhile, and its head would not be true.
    if content.len() as u64 != wanted_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Found { name, len, tag, modified, wanted, content: content.into() })
}

/// An entity tag (RFC 9110 8.8.3): the same as long as this is the same.
fn tag(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs what blocks on a thread that may; beside a test at once, where nothing waits for other threads.
async fn blocking<A: Send + 'static>(job: impl FnOnce() -> A + Send + 'static) -> Result<A, HttpError> {
    if Runtime::is_thread_shared() {
        return Ok(job());
    }
    static READ: OnceLock<Sender<Job>> = OnceLock::new();
    let readers = READ.get_or_init(|| {
        let (sender, jobs) = bounded::<Job>(WAITING_MAX);
        for number in 0..READERS {
            let jobs = jobs.clone();
            let reader = thread::Builder::new().name(format!("ringwire-files-{number}"));
            let work = move || {
                for job in jobs {
                    guarded("a read", job);
                }
            };
            let started = reader.spawn(work);
            if let Err(error) = started {
                tracing::error!(%error, "a thread that reads files could not be started");
            }
        }
        sender
    });
    let (done, result) = oneshot::channel();
    let job: Job = Box::new(move || drop(done.send(job())));
    let busy = || HttpError::unavailable("busy");
    match readers.try_send(job) {
        Ok(()) => result.await.map_err(|_| busy()),
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(busy()),
    }
}

impl Group {
    /// Files below `path`, by GET and HEAD: see [`Files`]. Routes that are named by their paths come first.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Files};
    ///
    /// let pages = || Files::embedded([("index.html", b"<h1>Help</h1>".as_slice())]);
    /// let server = TestServer::new(move || {
    ///     App::new().group("/help", |help| help.files("/", pages()).get("/version", async |_| "1"))
    /// });
    /// assert_eq!(server.get("/help/index.html").send().text(), "<h1>Help</h1>");
    /// assert_eq!(server.get("/help/version").send().text(), "1");
    /// ```
    ///
    /// # Panics
    /// At the start, if the group has other routes of all that is below `path`.
    #[must_use]
    pub fn files(self, path: &str, files: Files) -> Group {
        let path = path.trim_end_matches('/');
        let (root, below) = (files.clone(), files.clone());
        // A parameter for all that is below stands for something, and not for nothing.
        let group = self.get(&format!("{path}/"), async move |request: Request| root.answer(request, "").await);
        let group = match path {
            "" => group,
            path => group.get(path, async move |request: Request| below.answer(request, "").await),
        };
        group.get(&format!("{path}/{{*file}}"), async move |request: Request| {
            let name = request.param("file").to_owned();
            files.answer(request, &name).await
        })
    }
}

impl App {
    /// See [`Group::files`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, Files};
    ///
    /// let pages = || Files::embedded([("index.html", b"<h1>Hello</h1>".as_slice())]);
    /// let server = TestServer::new(move || App::new().files("/", pages()));
    /// assert_eq!(server.get("/index.html").send().text(), "<h1>Hello</h1>");
    /// ```
    #[must_use]
    pub fn files(self, path: &str, files: Files) -> App {
        self.change(|root| root.files(path, files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |first, end| Wanted::Part(first..end);
        for (range, wanted) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 6)),
            ("bytes=2-99", part(2, 10)),
            ("bytes=9-", part(9, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(one_range(range, 10), wanted, "{range}");
        }
        assert_eq!(one_range("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn names_that_nobody_may_ask_for() {
        for name in ["..", "a/../b", ".git/config", "a/.b", "a\\b", "c:/x", "a\0b", "."] {
            assert_eq!(clean(name), None, "{name}");
        }
        for (name, path) in
            [("", ""), ("a/b.txt", "a/b.txt"), ("//etc/passwd", "etc/passwd"), ("a//b/", "a/b"), ("a..b", "a..b")]
        {
            assert_eq!(clean(name).as_deref(), Some(Path::new(path)), "{name}");
        }
    }
}
