//! Servers of other runtimes, where their packages are installed: a small script for each is in `js/` beside this crate.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server in a script.
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    script: &'static str,
    /// Packages any of which it can be: the first that is installed.
    modules: &'static [&'static str],
    runtimes: &'static [&'static str],
}

/// All of them.
pub(crate) const ALL: [Foreign; 3] = [
    Foreign { name: "node ws", script: "ws.mjs", modules: &["ws"], runtimes: &["node"] },
    Foreign {
        name: "uWebSockets.js",
        script: "uws.mjs",
        modules: &["uWebSockets.js", "@btc-vision/uwebsockets.js"],
        runtimes: &["node"],
    },
    Foreign {
        name: "Bun",
        script: "bun.mjs",
        modules: &[],
        runtimes: &[
            "node_modules/@oven/bun-linux-x64/bin/bun",
            "node_modules/@oven/bun-linux-x64-baseline/bin/bun",
            "node_modules/@oven/bun-linux-aarch64/bin/bun",
            "bun",
        ],
    },
];

/// What a server needs to speak beside WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls,
    Deflate,
}

/// An installed one.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) name: &'static str,
    runtime: PathBuf,
    script: PathBuf,
    module: Option<&'static str>,
    modules: PathBuf,
}

impl Foreign {
    /// How it is started, if its runtime and its package are there.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn find(&self, modules: &Path) -> Result<Installed, String> {
        let modules = std::path::absolute(modules).map_err(|error| error.to_string())?;
        let is_there = |module: &&&str| modules.join("node_modules").join(module).join("package.json").exists();
        let module = self.modules.iter().find(is_there);
        if module.is_none() && !self.modules.is_empty() {
            let named = self.modules.join(" or ");
            return Err(format!("{} has no package {named}", modules.join("node_modules").display()));
        }
        let runtimes = self.runtimes.iter().map(|runtime| match runtime.contains('/') {
            true => modules.join(runtime),
            false => PathBuf::from(runtime),
        });
        let runtime = runtimes.into_iter().find(|runtime| {
            let version = Command::new(runtime).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        });
        let runtime = runtime.ok_or_else(|| format!("none of {} can be run", self.runtimes.join(", ")))?;
        // A package of another C library is there, and cannot be loaded.
        if let Some(module) = module {
            let path = modules.join("node_modules").join(module);
            let loaded = Command::new(&runtime)
                .args(["-e", "require(process.argv[1])"])
                .arg(path)
                .stderr(Stdio::null())
                .status();
            if !loaded.is_ok_and(|status| status.success()) {
                return Err(format!("{} cannot load {module}", runtime.display()));
            }
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("js").join(self.script);
        if !script.exists() {
            return Err(format!("{} is not there", script.display()));
        }
        Ok(Installed { name: self.name, runtime, script, module: module.copied(), modules })
    }
}

impl Installed {
    /// The command that starts it; `files` are those of the certificate and its key.
    pub(crate) fn command(&self, mode: &str, wire: Wire, files: &(PathBuf, PathBuf)) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg(&self.script).arg(mode).arg("--modules").arg(&self.modules);
        if let Some(module) = self.module {
            command.args(["--module", module]);
        }
        match wire {
            Wire::Plain => {}
            Wire::Tls => drop(command.arg("--cert").arg(&files.0).arg("--key").arg(&files.1)),
            Wire::Deflate => drop(command.arg("--deflate")),
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = Path::new("/nowhere");
        for foreign in &ALL[..2] {
            let error = foreign.find(nowhere).expect_err("nothing is there");
            assert!(error.contains("/nowhere/node_modules has no package"), "{error}");
        }
    }
}
