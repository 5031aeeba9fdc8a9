use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read_with_flags(variables, &[])
}

fn read_with_flags(variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let flags = flags.iter().map(|(name, value)| {
        let setting = SETTINGS.iter().find(|setting| setting.flag() == *name);
        (setting.expect("a flag"), *value)
    });
    Config::from_sources(variables, flags)
}

#[test]
fn defaults() {
    let config = read(&[("PATH", "/bin"), ("RINGWIRED", "1")]).expect("defaults");
    assert_eq!(config, Config::default());
    let address: ListenAddress = "127.0.0.1:9001".parse().expect("an address");
    assert_eq!(config.addresses, [address]);
    assert_eq!(config.cores, CoreSet::All);
    assert_eq!(config.recv_buffer_bytes, 2048);
    assert_eq!(config.message_bytes_max, 16 << 20);
    assert_eq!(config.fragments_max, 131_072);
    assert_eq!(config.spin, Duration::ZERO);
    assert_eq!(config.idle_timeout, Duration::from_secs(120));
    assert_eq!(config.slow_consumer, SlowConsumer::Close);
    assert_eq!(config.origins, Origins::Any);
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn every_default_is_shown_as_it_is_written() {
    let config = Config::default();
    for setting in SETTINGS {
        let mut again = config.clone();
        let shown = setting.value(&config);
        setting.apply(&mut again, "", &shown).expect(setting.variable);
        assert_eq!(again, config, "{}", setting.variable);
        // What is shown may be written otherwise, but is the same.
        let mut default = config.clone();
        setting.apply(&mut default, "", setting.default).expect(setting.variable);
        assert_eq!(default, config, "{}", setting.variable);
    }
}

#[test]
fn names_are_well_formed_and_different() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(setting.variable.starts_with(PREFIX));
        assert!(!setting.doc.is_empty() && !setting.doc.ends_with('.'));
        assert!(!setting.doc.contains('|') && !setting.allowed.describe().contains('|'));
        for other in &SETTINGS[..index] {
            assert_ne!(setting.variable, other.variable);
        }
    }
    let max = Setting::named("RINGWIRE_MAX_CONNECTIONS").expect("a setting");
    assert_eq!(max.flag(), "max-connections");
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    let cases = [
        ("RINGWIRE_RECV_BUFFERS", "4095", "a power of two"),
        ("RINGWIRE_RECV_BUFFERS", "65536", "from 1 to 32768"),
        ("RINGWIRE_MAX_OUTBOX", "lots", "a size from 1KiB to 4GiB"),
        ("RINGWIRE_IDLE_TIMEOUT", "30", "0 (never) or a time from"),
        ("RINGWIRE_SLOW_CONSUMER", "wait", "close, drop-new, drop-old or keep-latest"),
        ("RINGWIRE_ADDR", "9001", "HOST:PORT or unix:/PATH"),
        ("RINGWIRE_IDLE_TIMEOUT", "120", "did you mean 120s?"),
        ("RINGWIRE_MAX_MESSAGE", "16MB", "did you mean 16MiB?"),
        ("RINGWIRE_CORES", "0", "all, a number from 1 to 1024"),
        ("RINGWIRE_CORES", "0,0", "a list of different processors"),
        ("RINGWIRE_CORES", "0-2,1", "a list of different processors"),
        ("RINGWIRE_PIN", "", "true or false"),
        ("RINGWIRE_LOG", "", "a filter"),
    ];
    for (variable, value, allowed) in cases {
        let message = read(&[(variable, value)]).expect_err(variable).to_string();
        assert!(message.starts_with(&format!("{variable}={value} ")) && message.contains(allowed), "{message}");
    }
}

#[test]
fn an_unknown_variable_suggests_the_nearest() {
    let cases = [
        ("RINGWIRE_CORE", Some("RINGWIRE_CORES")),
        ("RINGWIRE_MAX_CONECTIONS", Some("RINGWIRE_MAX_CONNECTIONS")),
        ("RINGWIRE_addr", Some("RINGWIRE_ADDR")),
        ("RINGWIRE_DRIAN_TIMEOUT", Some("RINGWIRE_DRAIN_TIMEOUT")),
        ("RINGWIRE_PRNI", Some("RINGWIRE_PIN")),
        ("RINGWIRE_SOMETHING_ELSE_ENTIRELY", None),
        ("RINGWIRE_FOO", None),
        ("RINGWIRE_X", None),
        ("RINGWIRE_SIMULATE", None),
        ("RINGWIRE_", None),
    ];
    for (name, expected) in cases {
        match read(&[(name, "1")]) {
            Err(ConfigError::Unknown { name: told, suggestion }) => {
                assert_eq!(told, name);
                assert_eq!(suggestion.as_deref(), expected, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Kills: a server that does not start where the simulation's variables are exported.
#[test]
fn the_simulation_s_variables_are_no_settings() {
    let variables = [
        ("RINGWIRE_SIM_SEEDS", "1000"),
        ("RINGWIRE_SIM_SEED", "7"),
        ("RINGWIRE_SIM_FROM", "1"),
        ("RINGWIRE_TEST_SEED", "7"),
    ];
    assert_eq!(read(&variables), Ok(Config::default()));
}

#[test]
fn flags_win_over_variables_and_errors_name_them() {
    let config = read_with_flags(&[("RINGWIRE_CORES", "2")], &[("cores", "3")]).expect("legal");
    assert_eq!(config.cores, CoreSet::Count(3));
    let message = read_with_flags(&[], &[("cores", "none")]).expect_err("a bad flag").to_string();
    assert!(message.starts_with("--cores=none "), "{message}");
}

#[test]
fn values_that_are_no_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = OsString::from_vec(b"unix:/\xff".to_vec());
    let variables = [(OsString::from("RINGWIRE_ADDR"), value)];
    assert!(Config::from_sources(variables, []).is_err());
}

#[test]
fn contradictions() {
    let message = read(&[("RINGWIRE_RING_ENTRIES", "1024"), ("RINGWIRE_CQ_ENTRIES", "512")])
        .expect_err("a short completion queue")
        .to_string();
    assert_eq!(message, "RINGWIRE_CQ_ENTRIES=512 cannot be: it is less than RINGWIRE_RING_ENTRIES=1024");
    assert!(read(&[("RINGWIRE_DRAIN_SPREAD", "11s")]).is_err());
    assert!(read(&[("RINGWIRE_DRAIN_TIMEOUT", "500ms"), ("RINGWIRE_DRAIN_SPREAD", "0")]).is_ok());
}

/// Kills: buffers whose bytes do not fit into 32 bits.
#[test]
fn provided_buffers_are_of_a_size_that_a_core_can_have() {
    let message =
        read(&[("RINGWIRE_RECV_BUFFER_SIZE", "1MiB")]).expect_err("4 GiB, with as many buffers as usual").to_string();
    let expected = "RINGWIRE_RECV_BUFFER_SIZE=1MiB cannot be: with RINGWIRE_RECV_BUFFERS=4096 that is 4096 MiB for each core, \
                    and at most 1024 MiB are allowed";
    assert_eq!(message, expected);
    assert!(read(&[("RINGWIRE_RECV_BUFFER_SIZE", "1MiB"), ("RINGWIRE_RECV_BUFFERS", "32768")]).is_err());
    assert!(read(&[("RINGWIRE_RECV_BUFFER_SIZE", "1MiB"), ("RINGWIRE_RECV_BUFFERS", "1024")]).is_ok());
}

#[test]
fn fields_set_by_hand_are_validated() {
    let config = Config::default().recv_buffers(1000);
    let message = config.validate().expect_err("no power of two").to_string();
    assert!(message.starts_with("RINGWIRE_RECV_BUFFERS=1000 "), "{message}");
    let config = Config::default().addresses(Vec::new());
    assert!(config.validate().is_err());
}

#[test]
fn processors_that_are_not_there_are_refused() {
    let config = Config::default().cores(CoreSet::List(vec![0, 7]));
    assert_eq!(
        config.cpus(&[0, 1]).expect_err("no such processor").to_string(),
        "RINGWIRE_CORES=0,7 cannot be: this process may not run on 7 (only on 0,1)"
    );
    assert_eq!(config.cpus(&[0, 7]), Ok(vec![0, 7]));
}

#[test]
fn lines_are_read_back() {
    let config = Config::default()
        .cores(CoreSet::List(vec![3]))
        .spin(Duration::from_micros(50))
        .origins("https://a.test,https://b.test".parse().expect("origins"))
        .api_origins(Some("https://c.test".parse().expect("origins")))
        .max_head(1000);
    let lines = config.to_lines();
    assert_eq!(lines.lines().count(), SETTINGS.len());
    let variables: Vec<(&str, &str)> = lines.lines().map(|line| line.split_once('=').expect("NAME=value")).collect();
    // None of these has a quotation mark in it.
    let variables: Vec<(&str, &str)> =
        variables.into_iter().map(|(name, value)| (name, value.trim_matches('\''))).collect();
    assert_eq!(read(&variables), Ok(config));
}

#[test]
fn a_token_is_never_printed() {
    let config = read(&[("RINGWIRE_API_TOKEN", "hush-hush")]).expect("legal");
    assert!(config.api_token.as_ref().is_some_and(|token| token.is(b"hush-hush") && !token.is(b"hush-hus")));
    assert_eq!(config.validate(), Ok(()));
    assert!(config.to_lines().contains("\nRINGWIRE_API_TOKEN='(set)'\n"));
    assert!(!format!("{config:?}").contains("hush") && !config.to_lines().contains("hush"));
    for wrong in ["hush hush", "", "(set)"] {
        let message = read(&[("RINGWIRE_API_TOKEN", wrong)]).expect_err(wrong).to_string();
        assert!(message.starts_with("RINGWIRE_API_TOKEN=(hidden) is not allowed"), "{message}");
    }
    assert_eq!(read(&[("RINGWIRE_API_TOKEN", "(none)")]), Ok(Config::default()));
}

/// README shows the table that the program is made of. It is checked as soon as there is a README.
#[test]
fn readme_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let Ok(readme) = std::fs::read_to_string(path) else {
        return;
    };
    let table = Config::markdown_table();
    assert!(readme.contains(&table), "README's table of settings should be:\n{table}");
}

#[test]
fn listeners_that_contradict_each_other() {
    for (variables, reason) in [
        (
            &[("RINGWIRE_PROXY_PROTOCOL", "127.0.0.1:9003")][..],
            "RINGWIRE_PROXY_PROTOCOL=127.0.0.1:9003 cannot be: 127.0.0.1:9003 is none of RINGWIRE_ADDR",
        ),
        (
            &[("RINGWIRE_ADMIN_ADDR", "127.0.0.1:9001")],
            "RINGWIRE_ADMIN_ADDR=127.0.0.1:9001 cannot be: it is one of RINGWIRE_ADDR",
        ),
    ] {
        assert_eq!(read(variables).expect_err(reason).to_string(), reason);
    }
    for fine in [
        &[("RINGWIRE_ADDR", "127.0.0.1:9001,unix:/x"), ("RINGWIRE_PROXY_PROTOCOL", "unix:/x")][..],
        &[("RINGWIRE_ADDR", "127.0.0.1:0"), ("RINGWIRE_ADMIN_ADDR", "127.0.0.1:0")],
    ] {
        assert!(read(fine).is_ok(), "{fine:?}");
    }
}
