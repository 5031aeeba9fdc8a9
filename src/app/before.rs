//! Hooks that run before a request is answered, as they are kept, and how they are run.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use http::StatusCode;

use crate::app::error_http::HttpError;
use crate::app::request::Request;
use crate::guard::{Guarded, guarded};

pub(crate) type LocalBoxFuture<'f, T> = Pin<Box<dyn Future<Output = T> + 'f>>;

type Check = Rc<dyn Fn(&mut Request) -> Result<(), HttpError>>;
type CheckAsync = Rc<dyn for<'r> Fn(&'r mut Request) -> LocalBoxFuture<'r, Result<(), HttpError>>>;

#[derive(Clone)]
pub(crate) enum Before {
    Now(Check),
    Later(CheckAsync),
}

impl Before {
    pub(crate) fn now(check: impl Fn(&mut Request) -> Result<(), HttpError> + 'static) -> Before {
        let check = Guarded::new(check);
        Before::Now(Rc::new(move |request| check(request)))
    }

    pub(crate) fn later<F>(check: F) -> Before
    where
        F: AsyncFn(&mut Request) -> Result<(), HttpError> + 'static,
    {
        let check = Rc::new(Guarded::new(check));
        Before::Later(Rc::new(move |request| {
            let check = Rc::clone(&check);
            Box::pin(async move { check(request).await })
        }))
    }
}

pub(crate) async fn check(hooks: impl IntoIterator<Item = &Before>, request: &mut Request) -> Result<(), HttpError> {
    for before in hooks {
        match before {
            Before::Now(check) => check_one(check.as_ref(), request)?,
            Before::Later(check) => check(request).await?,
        }
    }
    Ok(())
}

/// Runs hooks of which none waits.
pub(crate) fn check_now<'h>(
    hooks: impl IntoIterator<Item = &'h Before>,
    request: &mut Request,
) -> Result<(), HttpError> {
    for before in hooks {
        if let Before::Now(check) = before {
            check_one(check.as_ref(), request)?;
        }
    }
    Ok(())
}

fn check_one(check: &dyn Fn(&mut Request) -> Result<(), HttpError>, request: &mut Request) -> Result<(), HttpError> {
    let internal = || Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
    guarded("a hook", || check(request)).unwrap_or_else(internal)
}
