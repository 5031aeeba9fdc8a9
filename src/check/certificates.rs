//! Whether the files of certificates can be used, and for how long.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::report::{Finding, Verdict};
use crate::config::Config;
use crate::tls::{Certificate, Material};

/// Others may read it.
const OTHERS: u32 = 0o077;

/// A pair, and what came of it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The names that it is for, and the whole days that are left; or why it cannot be used.
    pub(super) result: Result<(Vec<String>, u64), String>,
    /// The permissions of the key's file.
    pub(super) key_mode: Option<u32>,
}

/// All of them, and what cannot be used beside them.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) pairs: Vec<Pair>,
    /// Why all together cannot be used, though each can: those of clients.
    pub(super) rest: Option<String>,
}

pub(super) fn read_all(config: &Config, now_unix_s: u64) -> Certificates {
    let material = Material::of(config);
    let pairs: Vec<Pair> =
        material.pairs.iter().map(|(certificate, key)| read(certificate, key, now_unix_s)).collect();
    let is_each_good = pairs.iter().all(|pair| pair.result.is_ok());
    let rest = material.read(now_unix_s).err().filter(|_| is_each_good && !pairs.is_empty());
    Certificates { pairs, rest: rest.map(|error| error.to_string()) }
}

fn read(certificate: &Path, key: &Path, now_unix_s: u64) -> Pair {
    let read = Certificate::read_alone(certificate, key, now_unix_s);
    Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        result: read.map(|read| (read.names.clone(), read.days_left(now_unix_s))).map_err(|error| error.to_string()),
        key_mode: fs::metadata(key).ok().map(|file| file.permissions().mode()),
    }
}

pub(super) fn findings(certificates: &Certificates) -> Vec<Finding> {
    let clients = certificates.rest.iter().map(|error| {
        let finding = Finding::good("certificates of clients", error.clone(), "files that can be used");
        finding.but(Verdict::Bad, "put other files into RINGWIRE_TLS_CLIENT_CA")
    });
    certificates.pairs.iter().map(judge).chain(clients).collect()
}

fn judge(pair: &Pair) -> Finding {
    let file = pair.certificate.display();
    let wanted = "a certificate that is good for some weeks, and its key, which nobody else may read";
    match &pair.result {
        Err(error) => Finding::good("certificate", error.clone(), wanted)
            .but(Verdict::Bad, "put other files into RINGWIRE_TLS_CERT and RINGWIRE_TLS_KEY, or renew these"),
        Ok((names, days_left)) => {
            let found = format!("{file}: for {}, {days_left} days left", names.join(", "));
            let finding = Finding::good("certificate", found, wanted);
            if *days_left < Certificate::DAYS_LEFT_FEW {
                return finding.but(Verdict::Advice, "renew it: a running server takes the new files within 10s");
            }
            if pair.key_mode.is_some_and(|mode| mode & OTHERS != 0) {
                let remedy = format!("others may read the key: chmod 600 {}", pair.key.display());
                return finding.but(Verdict::Advice, remedy);
            }
            finding
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_judged() {
        let pair = |result: Result<u64, &str>, key_mode| Pair {
            certificate: "/a.pem".into(),
            key: "/a.key".into(),
            result: result.map(|days| (vec!["a.test".into()], days)).map_err(Into::into),
            key_mode: Some(key_mode),
        };
        for (pair, verdict, says) in [
            (pair(Ok(90), 0o100_600), Verdict::Good, "for a.test, 90 days left"),
            (pair(Ok(13), 0o100_600), Verdict::Advice, "13 days left"),
            (pair(Ok(90), 0o100_640), Verdict::Advice, "90 days left"),
            (pair(Err("/a.pem: it is no more"), 0o100_600), Verdict::Bad, "it is no more"),
        ] {
            let finding = judge(&pair);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(says), "{finding:?}");
        }
        let rest = Certificates { pairs: Vec::new(), rest: Some("/ca.pem: empty".into()) };
        assert_eq!(findings(&rest)[0].verdict, Verdict::Bad);
        assert!(findings(&Certificates::default()).is_empty());
    }
}
