//! Which endpoint a request is for.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::app::definition::{Definition, Hooks, HttpHandler, Target};
use crate::app::error_http::HttpError;
use crate::app::layers::{Below, Layers};
use crate::app::path;
use crate::app::ws::Ws;
use crate::shard::service::{Reply, Serves};

/// One path of the router.
#[derive(Default)]
pub(crate) struct Endpoint {
    pub(crate) path: Arc<str>,
    /// See [`Definition::is_admin`].
    is_admin: bool,
    pub(crate) ws: Option<(u16, Rc<Hooks>)>,
    pub(crate) methods: Vec<(Option<Method>, HttpHandler, Rc<Hooks>)>,
}

/// Finds the endpoint of a request.
pub(crate) struct Router {
    paths: matchit::Router<usize>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// The WebSocket routes by number, with their paths and hooks.
    pub(crate) ws: Vec<(Ws, String, Rc<Hooks>)>,
    /// Those of nested apps first.
    fallbacks: Vec<(Below, HttpHandler)>,
    pub(crate) layers: Layers,
}

pub(crate) type Params = SmallVec<[(String, String); 2]>;

impl Router {
    pub(crate) fn new(definitions: Vec<Definition>, fallbacks: Vec<(String, HttpHandler)>, layers: Layers) -> Router {
        let mut fallbacks: Vec<_> = fallbacks.into_iter().map(|(path, handler)| (Below::of(&path), handler)).collect();
        fallbacks.sort_by_key(|(below, _)| std::cmp::Reverse(below.depth()));
        let (endpoints, ws) = (Vec::new(), Vec::new());
        let mut router = Router { paths: matchit::Router::new(), endpoints, ws, fallbacks, layers };
        for definition in definitions {
            let index = router.endpoint(&definition.path, definition.is_admin);
            let hooks = Rc::new(definition.hooks);
            match definition.target {
                Target::Ws(ws) => {
                    assert!(router.endpoints[index].ws.is_none(), "two WebSocket routes at {}", definition.path);
                    router.endpoints[index].ws = Some((router.ws.len() as u16, Rc::clone(&hooks)));
                    router.ws.push((ws, definition.path, hooks));
                }
                Target::Http(method, handler) => router.endpoints[index].methods.push((method, handler, hooks)),
            }
        }
        router
    }

    /// What answers where there is no route: that of the innermost app.
    pub(crate) fn fallback(&self, path: &str, serves: Serves) -> Option<&HttpHandler> {
        let mut fallbacks = self.fallbacks.iter().filter(|_| serves != Serves::Admin);
        fallbacks.find(|(below, _)| below.has(Some(path))).map(|(_, handler)| handler)
    }

    fn endpoint(&mut self, path: &str, is_admin: bool) -> usize {
        if let Some(index) = self.endpoints.iter().position(|endpoint| &*endpoint.path == path) {
            let is_same = self.endpoints[index].is_admin == is_admin;
            assert!(is_same, "the routes at {path} are all for operators, or none of them");
            return index;
        }
        let index = self.endpoints.len();
        if let Err(error) = self.paths.insert(path, index) {
            panic!("the route {path} cannot be added: {error}");
        }
        self.endpoints.push(Endpoint { path: path.into(), is_admin, ..Endpoint::default() });
        index
    }

    /// The answer to a request that is for the server as a whole, if it is one: `*` is for OPTIONS alone (RFC 9112 3.2.4).
    pub(crate) fn answer_for_server(&self, method: &str, path: &str, serves: Serves) -> Option<Reply> {
        if path != "*" {
            return None;
        }
        if method != "OPTIONS" {
            return Some(Reply::error(StatusCode::BAD_REQUEST, "only OPTIONS is for the whole server"));
        }
        let mut allowed = Vec::from(["OPTIONS"]);
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.is_served_by(serves)) {
            allowed.extend(endpoint.allowed().filter(|method| !allowed.contains(method)).collect::<Vec<_>>());
        }
        let reply = Reply { status: StatusCode::NO_CONTENT, headers: Default::default(), body: Default::default() };
        Some(reply.with_header(http::header::ALLOW, allow(&allowed)))
    }

    /// The endpoint of a path and its parameters; `None` if there is none where the request came in. Characters match whether they are percent-encoded
    /// or not (RFC 3986 6.2.2.2), but a slash that is does not part segments.
    ///
    /// # Errors
    /// 400 if a parameter is not UTF-8: made valid, different ones would be the same.
    pub(crate) fn find(&self, path: &str, serves: Serves) -> Result<Option<(&Endpoint, Params)>, HttpError> {
        let (path, is_text) = path::for_routes(path);
        let Ok(found) = self.paths.at(&path) else { return Ok(None) };
        if !self.endpoints[*found.value].is_served_by(serves) {
            return Ok(None);
        }
        if !is_text {
            return Err(HttpError::bad_request("the path is not UTF-8"));
        }
        let decode = |(name, value): (&str, &str)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        };
        let params: Option<Params> = found.params.iter().map(decode).collect();
        let params = params.ok_or(HttpError::bad_request("the path is not UTF-8"))?;
        Ok(Some((&self.endpoints[*found.value], params)))
    }
}

impl Endpoint {
    fn is_served_by(&self, serves: Serves) -> bool {
        match serves {
            Serves::All => true,
            Serves::Public => !self.is_admin,
            Serves::Admin => self.is_admin,
        }
    }

    /// The HTTP handler for a method. GET's also answers HEAD.
    ///
    /// # Errors
    /// 405 with the methods that there are.
    pub(crate) fn handler(&self, method: &str) -> Result<(&HttpHandler, &Rc<Hooks>), Reply> {
        if let Some(found) = self.find(method) {
            return Ok(found);
        }
        let allowed: Vec<&str> = self.allowed().collect();
        let reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        Err(reply.with_header(http::header::ALLOW, allow(&allowed)))
    }

    /// Whether a method has a handler.
    pub(crate) fn has_handler(&self, method: &str) -> bool {
        self.find(method).is_some()
    }

    fn find(&self, method: &str) -> Option<(&HttpHandler, &Rc<Hooks>)> {
        let matches = |wanted: &Option<Method>, method: &str| wanted.as_ref().is_none_or(|wanted| wanted == method);
        let find = |method: &str| self.methods.iter().find(|(wanted, ..)| matches(wanted, method));
        let found = find(method).or_else(|| if method == "HEAD" { find("GET") } else { None });
        found.map(|(_, handler, hooks)| (handler, hooks))
    }

    /// The methods that it has, each once.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = &str> {
        let has = |name: &str| self.methods.iter().filter_map(|(method, ..)| method.as_ref()).any(|it| it == name);
        let own = self.methods.iter().enumerate().filter_map(|(index, (method, ..))| {
            let is_first = self.methods[..index].iter().all(|(earlier, ..)| earlier != method);
            method.as_ref().filter(|_| is_first).map(Method::as_str)
        });
        let get = (self.ws.is_some() && !has("GET")).then_some("GET");
        let head = ((get.is_some() || has("GET")) && !has("HEAD")).then_some("HEAD");
        own.chain(get).chain(head)
    }
}

fn allow(methods: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&methods.join(", ")).expect("methods are tokens")
}
