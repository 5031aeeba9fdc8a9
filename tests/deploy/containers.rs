//! The image, and the manifests that start it: what they need to have, and that what they say of the program holds.

use std::collections::BTreeMap;

use ringwire::config::{Config, Setting};
use yaml_rust2::Yaml;

use crate::{config_of, end_s, list, place, port, read, seconds, text, yaml};

/// Who runs the program in a container: nobody that a host has (distroless' `nonroot`).
const USER: i64 = 65532;
/// Routes of the program that containers ask for.
const PROBED: [&str; 2] = ["/healthz", "/readyz"];

/// Instructions of the Dockerfile, each with what belongs to it, continued lines joined, by stages.
fn stages() -> Vec<Vec<(String, String)>> {
    let joined = read("deploy/Dockerfile").replace("\\\n", " ");
    let mut stages: Vec<Vec<(String, String)>> = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        if instruction == "FROM" {
            stages.push(Vec::new());
        }
        stages.last_mut().expect("FROM comes first").push((instruction.to_owned(), rest.trim().to_owned()));
    }
    stages
}

fn of<'a>(stage: &'a [(String, String)], instruction: &str) -> Vec<&'a str> {
    stage.iter().filter(|(name, _)| name == instruction).map(|(_, rest)| rest.as_str()).collect()
}

/// What comes out of the Dockerfile is the program alone, started by nobody, at an address that is reached from outside.
#[test]
fn the_images_are_small_and_nobody_s() {
    let stages = stages();
    let (builds, finals): (Vec<_>, Vec<_>) = stages.iter().partition(|stage| of(stage, "FROM")[0].starts_with("rust:"));
    assert_eq!((builds.len(), finals.len()), (2, 2));
    for stage in &builds {
        // Members of the workspace and all that they refer to.
        assert_eq!(of(stage, "COPY"), [". ."]);
        let last = of(stage, "RUN").pop().expect("a build");
        assert!(
            last.contains("cargo build --release --locked -p ringwire && cp target/release/ringwire /ringwire"),
            "{last}"
        );
        // A C compiler is all that is installed.
        let installs: Vec<_> = of(stage, "RUN").into_iter().filter(|run| !run.contains("cargo")).collect();
        assert!(installs.is_empty() || installs == ["apk add --no-cache gcc musl-dev"], "{installs:?}");
    }
    let names: Vec<_> =
        builds.iter().filter_map(|stage| of(stage, "FROM")[0].rsplit_once(" AS ")).map(|(_, name)| name).collect();
    for stage in &finals {
        let from = of(stage, "FROM")[0];
        assert!(from.starts_with("scratch ") || from.starts_with("gcr.io/distroless/cc-"), "{from}");
        assert!(of(stage, "RUN").is_empty(), "there is no shell");
        let copied = of(stage, "COPY");
        assert!(
            matches!(&copied[..], [one] if names.iter().any(|name| *one == format!("--from={name} /ringwire /usr/local/bin/ringwire"))),
            "{copied:?}"
        );
        assert_eq!(of(stage, "USER"), [format!("{USER}:{USER}")]);
        assert_eq!(of(stage, "ENTRYPOINT"), ["[\"/usr/local/bin/ringwire\"]"]);
        let variables = of(stage, "ENV").into_iter().map(|it| it.split_once('=').expect("NAME=value"));
        let config = config_of(&variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        assert_eq!(of(stage, "EXPOSE"), [port(&config, "RINGWIRE_ADDR").to_string()]);
    }
    // The one that is made where none is named.
    assert!(of(stages.last().expect("some"), "FROM")[0].starts_with("gcr.io/distroless/"));
}

/// Kills: a member of the workspace that the build does not see.
#[test]
fn the_build_sees_what_it_is_made_of() {
    let ignore = read("deploy/Dockerfile.dockerignore");
    let kept: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"));
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).expect("a workspace");
    for member in
        members.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"')).filter(|name| *name != ".")
    {
        assert!(kept.iter().any(|kept| member == *kept || member.starts_with(&format!("{kept}/"))), "{member}");
    }
    for name in ["Cargo.toml", "Cargo.lock", "src", "README.md"] {
        assert!(kept.contains(&name) && place(name).exists(), "{name}");
    }
    // Files that the sources take in are in folders that are seen.
    for line in manifest.lines().filter_map(|line| line.strip_prefix("path = \"")) {
        let top = line.split(['/', '"']).next().expect("a folder");
        assert!(kept.contains(&top), "{line}");
    }
}

fn is_tagged_with_the_version(image: &str) {
    let tag = image.rsplit_once(':').map(|(_, tag)| tag);
    assert_eq!(tag, Some(env!("CARGO_PKG_VERSION")), "{image}");
}

fn bytes(text: &str) -> f64 {
    let units = [("Mi", 1048576.0), ("Gi", 1073741824.0), ("g", 1073741824.0)];
    let (number, unit) =
        units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes))).expect("a unit");
    number.parse::<f64>().expect("a number") * unit
}

/// The budget of messages leaves room for the program itself, as `check` counts it, within a limit of the memory.
fn fits(config: &Config, limit_bytes: f64) {
    let budget = Setting::named("RINGWIRE_MAX_MEMORY").expect("a setting").value(config);
    let budget = bytes(budget.strip_suffix('B').expect("a size"));
    // Two cores with 100,000 slots each take 25 MiB.
    assert!(budget > 0.0 && budget + 64.0 * 1048576.0 < limit_bytes, "{budget} of {limit_bytes}");
}

#[test]
fn compose_confines_the_program_and_gives_it_what_it_needs() {
    let document = &yaml("deploy/compose.yaml")[0];
    let service = &document["services"]["ringwire"];
    is_tagged_with_the_version(text(&service["image"]));
    let dockerfile = format!("deploy/{}/{}", text(&service["build"]["context"]), text(&service["build"]["dockerfile"]));
    assert!(place(&dockerfile).is_file(), "{dockerfile}");
    let variables: BTreeMap<String, String> = service["environment"]
        .as_hash()
        .expect("variables")
        .iter()
        // Compose puts one of its own environment there.
        .map(|(name, value)| {
            (text(name).to_owned(), if text(value).starts_with("${") { "a-token" } else { text(value) }.to_owned())
        })
        .collect();
    let config = config_of(&variables);
    // What is published is where it serves, which the image says.
    assert_eq!(list(&service["ports"]).iter().map(text).collect::<Vec<_>>(), ["9001:9001"]);
    assert!(port(&config, "RINGWIRE_ADMIN_ADDR") != 9001);
    let options: Vec<&str> = list(&service["security_opt"]).iter().map(text).collect();
    let profile = options.iter().find_map(|option| option.strip_prefix("seccomp:")).expect("a profile");
    assert!(place("deploy").join(profile).is_file());
    assert!(options.contains(&"no-new-privileges:true"));
    assert_eq!(list(&service["cap_drop"]).iter().map(text).collect::<Vec<_>>(), ["ALL"]);
    assert_eq!(service["read_only"].as_bool(), Some(true));
    assert_eq!(text(&service["user"]), format!("{USER}:{USER}"));
    fits(&config, bytes(text(&service["mem_limit"])));
    let nofile = service["ulimits"]["nofile"].as_i64().expect("a number");
    let most: i64 = variables["RINGWIRE_MAX_CONNECTIONS"].parse().expect("a number");
    assert!(nofile > most && service["ulimits"]["memlock"].as_i64().is_some_and(|bytes| bytes >= 8 << 20));
    let grace: f64 = text(&service["stop_grace_period"]).trim_end_matches('s').parse().expect("seconds");
    assert!(grace >= end_s(&config), "{grace} s for {} s", end_s(&config));
}

/// Whether a document has a value there and at each place behind it.
fn has(document: &Yaml, path: &str) -> bool {
    let mut value = document;
    for key in path.split('.') {
        value = &value[key];
    }
    !value.is_badvalue() && !value.is_null()
}

/// Fields that the interface of Kubernetes requires of each kind (k8s.io/api), and its only version that is not gone.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "Deployment",
        "apps/v1",
        &["spec.selector.matchLabels", "spec.template.metadata.labels", "spec.template.spec.containers"],
    ),
    (
        "DaemonSet",
        "apps/v1",
        &["spec.selector.matchLabels", "spec.template.metadata.labels", "spec.template.spec.containers"],
    ),
    ("Service", "v1", &["spec.selector", "spec.ports"]),
    ("PodDisruptionBudget", "policy/v1", &["spec.selector.matchLabels"]),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        &["spec.scaleTargetRef.kind", "spec.scaleTargetRef.name", "spec.maxReplicas", "spec.metrics"],
    ),
];

#[test]
fn manifests_have_what_their_kinds_require() {
    let documents = [yaml("deploy/kubernetes.yaml"), yaml("deploy/kubernetes-seccomp.yaml")].concat();
    assert_eq!(documents.len(), 6);
    for document in &documents {
        let kind = text(&document["kind"]);
        let (_, version, required) = KINDS.iter().find(|(name, ..)| *name == kind).expect(kind);
        assert_eq!(text(&document["apiVersion"]), *version, "{kind}");
        assert!(has(document, "metadata.name"), "{kind}");
        for path in *required {
            assert!(has(document, path), "{kind} lacks {path}");
        }
        // What selects pods selects those that are made.
        let template = &document["spec"]["template"]["metadata"]["labels"];
        if !template.is_badvalue() {
            assert_eq!(template, &document["spec"]["selector"]["matchLabels"], "{kind}");
        }
    }
}

fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> &'a Yaml {
    documents.iter().find(|document| document["kind"].as_str() == Some(kind)).expect(kind)
}

#[test]
fn kubernetes_runs_the_program_with_its_profile_and_no_rights() {
    let documents = yaml("deploy/kubernetes.yaml");
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"];
    let container = &list(&pod["containers"])[0];
    is_tagged_with_the_version(text(&container["image"]));
    let context = &pod["securityContext"];
    assert_eq!((context["runAsNonRoot"].as_bool(), context["runAsUser"].as_i64()), (Some(true), Some(USER)));
    let profile = &context["seccompProfile"];
    assert_eq!(text(&profile["type"]), "Localhost");
    // It is where the other manifest puts it.
    let set = &yaml("deploy/kubernetes-seccomp.yaml")[0]["spec"]["template"]["spec"];
    let folder = list(&set["volumes"]).iter().find_map(|volume| volume["hostPath"]["path"].as_str()).expect("a folder");
    let copy = list(&list(&set["initContainers"])[0]["command"]);
    let copied = text(&copy[2]).rsplit('/').next().expect("a name");
    assert_eq!(
        format!("{folder}/{copied}"),
        format!("/var/lib/kubelet/seccomp/{}", text(&profile["localhostProfile"]))
    );
    for container in list(&pod["containers"]).iter().chain(list(&set["containers"])).chain(list(&set["initContainers"]))
    {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"].as_bool(), Some(false));
        assert_eq!(context["readOnlyRootFilesystem"].as_bool(), Some(true));
        assert_eq!(list(&context["capabilities"]["drop"]).iter().map(text).collect::<Vec<_>>(), ["ALL"]);
    }
}

#[test]
fn kubernetes_asks_and_ends_the_program_as_its_settings_say() {
    let documents = yaml("deploy/kubernetes.yaml");
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"];
    let container = &list(&pod["containers"])[0];
    let variables: BTreeMap<String, String> = list(&container["env"])
        .iter()
        .map(|variable| {
            (text(&variable["name"]).to_owned(), variable["value"].as_str().unwrap_or("a-token").to_owned())
        })
        .collect();
    let config = config_of(&variables);
    let ports: BTreeMap<&str, i64> = list(&container["ports"])
        .iter()
        .map(|port| (text(&port["name"]), port["containerPort"].as_i64().expect("a number")))
        .collect();
    assert_eq!(ports["ws"], port(&config, "RINGWIRE_ADDR"));
    assert_eq!(ports["admin"], port(&config, "RINGWIRE_ADMIN_ADDR"));
    for service in documents.iter().filter(|document| document["kind"].as_str() == Some("Service")) {
        for port in list(&service["spec"]["ports"]) {
            assert_eq!(ports[text(&port["targetPort"])], port["port"].as_i64().expect("a number"));
        }
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        let expected = if probe == "readinessProbe" { PROBED[1] } else { PROBED[0] };
        // Health is where operators are: not on the public address, since there is another.
        assert_eq!((text(&get["path"]), text(&get["port"])), (expected, "admin"), "{probe}");
    }
    // It is seen not to be ready before it stops accepting, and has the time to end.
    let ready = &container["readinessProbe"];
    let unseen =
        (ready["periodSeconds"].as_i64().expect("s") * ready["failureThreshold"].as_i64().expect("times")) as f64;
    let notice = seconds(&config, "RINGWIRE_DRAIN_NOTICE");
    assert!(
        unseen + ready["timeoutSeconds"].as_i64().expect("s") as f64 + 2.0 < notice,
        "{unseen} s within {notice} s"
    );
    assert!(seconds(&config, "RINGWIRE_DRAIN_SPREAD") < seconds(&config, "RINGWIRE_DRAIN_TIMEOUT"));
    let grace = pod["terminationGracePeriodSeconds"].as_i64().expect("s") as f64;
    assert!(grace >= end_s(&config), "{grace} s for {} s", end_s(&config));
    fits(&config, bytes(text(&container["resources"]["limits"]["memory"])));
    // Fewer on average than each may have.
    let metrics = list(&of_kind(&documents, "HorizontalPodAutoscaler")["spec"]["metrics"]);
    let websockets =
        metrics.iter().find(|metric| metric["type"].as_str() == Some("Pods")).expect("a metric of the program's");
    let target: i64 = text(&websockets["pods"]["target"]["averageValue"]).parse().expect("a number");
    let most: i64 = variables["RINGWIRE_MAX_CONNECTIONS"].parse().expect("a number");
    assert!(target * 4 / 3 < most, "{target} of {most}");
}
