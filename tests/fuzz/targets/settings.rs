//! Settings from any text: never a panic, and what is taken prints as something that is taken for the same.
//!
//! Input: a byte that chooses the setting, then its value; further settings behind line feeds.

use ringwire::config::{Config, SETTINGS};

use super::take;

pub fn run(data: &[u8]) {
    let mut config = Config::default();
    for mut line in data.split(|&byte| byte == b'\n') {
        let setting = &SETTINGS[usize::from(take(&mut line)) % SETTINGS.len()];
        let text = String::from_utf8_lossy(line);
        let before = config.clone();
        if setting.apply(&mut config, setting.variable, &text).is_err() {
            assert_eq!(config, before, "a value that is refused changes nothing");
            continue;
        }
        let shown = setting.value(&config);
        assert!(!shown.is_empty() && !shown.contains('\n'), "{}: {shown:?}", setting.variable);
        if shown == "(set)" && setting.default == "(none)" {
            // A secret; it has no readable form. It may be called as some setting is.
            let printed = |config: &Config| config.to_lines().matches(text.trim()).count();
            assert!(text.trim().len() < 8 || printed(&config) <= printed(&before), "a secret is printed");
            continue;
        }
        let mut again = config.clone();
        let read = setting.apply(&mut again, setting.variable, &shown);
        assert!(read.is_ok(), "{}: {text:?} prints as {shown:?}, which is refused", setting.variable);
        assert_eq!(again, config, "{}: {text:?} prints as {shown:?}", setting.variable);
    }
    // Contradictions are errors, not panics.
    let _ = config.validate();
    let _ = config.cpus(&[0, 1]);
}
