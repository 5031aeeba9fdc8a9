//! Routes that HTTP handlers upgrade to, which each core meets in its own order.

use std::rc::Rc;

use futures_util::FutureExt;
use ringwire::{App, Message, Request, Response, Socket as Peer, Ws, ws};

use crate::host::Setup;
use crate::rig::{Rig, Socket};

fn two_cores(app: impl Fn() -> App + 'static) -> Rig {
    Rig::new(&Setup { cores: 2, app: Rc::new(app), ..Setup::default() })
}

fn to_route(socket: &mut Peer<'_>, message: Message<'_>) {
    socket.to_route().send(message).expect("bytes need no encoding");
}

fn upgrading(route: Ws) -> impl AsyncFn(Request) -> Response {
    async move |request| request.upgrade(&route)
}

fn texts(sockets: &mut [Socket]) -> Vec<Vec<String>> {
    sockets.iter_mut().map(Socket::texts).collect()
}

/// Kills: routes that are told apart on other cores by numbers, which each core gives in its own order.
#[test]
fn a_route_is_the_same_on_every_core_whichever_came_first() {
    let mut rig = two_cores(|| {
        let (a, b) = (ws().on_message(to_route), ws().on_message(to_route));
        App::new().get("/a", upgrading(a)).get("/b/{x}", upgrading(b)).ws("/c", to_route)
    });
    let mut sockets = Vec::new();
    for (core, path) in [(0, "/a"), (1, "/b/1"), (0, "/b/2"), (1, "/a"), (0, "/c"), (1, "/c")] {
        sockets.push(rig.open(core, path));
    }
    assert_eq!(texts(&mut sockets), [[""; 0]; 6]);
    for (sender, receivers) in [(0, [0, 3]), (1, [1, 2]), (4, [4, 5])] {
        sockets[sender].text("secret");
        rig.settle();
        let got: Vec<usize> = (0..6).filter(|n| !sockets[*n].texts().is_empty()).collect();
        assert_eq!(got, receivers);
    }
    let answer = rig.cores.hub.to_route("/b/{x}").send("by path").expect("text");
    rig.settle();
    assert_eq!(answer.wait().queued, 2);
    assert_eq!(texts(&mut sockets[1..3]), [["by path"], ["by path"]]);
    rig.finish();
}

/// Kills: routes that are told apart by path alone, and those made anew for each connection that are told apart at all.
#[test]
fn routes_at_one_path_are_told_apart_by_where_they_were_made() {
    let mut rig = two_cores(|| {
        App::new().get("/room/{who}", async |request: Request| {
            let guest = ws().on_message(to_route);
            let staff = ws().on_message(to_route);
            let route = if request.param("who") == "guest" { guest } else { staff };
            request.upgrade(&route)
        })
    });
    let mut sockets = Vec::new();
    for (core, path) in [(0, "/room/guest"), (1, "/room/staff"), (0, "/room/staff"), (1, "/room/guest")] {
        sockets.push(rig.open(core, path));
    }
    assert_eq!(texts(&mut sockets), [[""; 0]; 4]);
    for (sender, receivers) in [(0, [0, 3]), (1, [1, 2])] {
        sockets[sender].text("among us");
        rig.settle();
        let got: Vec<usize> = (0..4).filter(|n| !sockets[*n].texts().is_empty()).collect();
        assert_eq!(got, receivers);
    }
    rig.finish();
}

#[test]
fn upgraded_connections_are_listed_with_the_path_of_their_handler() {
    let mut rig = two_cores(|| App::new().get("/a/{x}", upgrading(ws())));
    let _sockets = [rig.open(0, "/a/1"), rig.open(1, "/a/2")];
    let hub = rig.cores.hub.clone();
    let mut listing = Box::pin(hub.connections());
    assert!((&mut listing).now_or_never().is_none());
    // A listing comes in parts, core by core: each is asked for when the one before it has come.
    let listed = (0..10).find_map(|_| {
        rig.settle();
        (&mut listing).now_or_never()
    });
    let paths: Vec<String> = listed.expect("answered").expect("all").iter().map(|of| of.route.to_string()).collect();
    assert_eq!(paths, ["/a/{x}"; 2]);
}
