//! What five other frameworks' documents describe, shown on a real server: one test for each capability, named after its
//! row. Clients are tungstenite, plain TCP, and plain HTTP; the examples that port those documents are served here as they
//! are.

mod common;

mod seeds {
    mod arcade;
    mod arcade_hooks;
    mod dart;
    mod finch;
    mod limits;
    mod revali;
    mod revali_life;
    mod rig;
    mod spry;
    mod stale;
}
