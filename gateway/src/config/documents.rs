//! The keys as documents: a file to start from, and a page that explains them.

use super::checks::allowed;
use super::schema::{Config, KEYS, Key, SECTIONS};

/// The default configuration as a commented TOML file.
#[must_use]
pub fn default_toml() -> String {
    let mut text = String::from(
        "# The defaults of Tidings. Every key may also be set as TIDINGS_SECTION__KEY or --section.key.\n",
    );
    each_section(
        &mut text,
        |text, section, about| {
            text.push_str(&format!("\n#{}\n[{section}]\n", about.join("\n#")));
        },
        |text, key, default| {
            for line in key.docs {
                text.push_str(&format!("#{line}\n"));
            }
            let unit = key.unit();
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!("{unit}, ")
            };
            text.push_str(&format!("# ({unit}{}; {})\n", allowed(key), counts(key)));
            text.push_str(&format!("{} = {default}\n", key.name));
        },
    );
    text
}

/// Every key as a Markdown document.
#[must_use]
pub fn docs_markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\nLayers, later ones win: defaults, the TOML file given with `--config`, environment variables \
         `TIDINGS_SECTION__KEY`, flags `--section.key value` (`--listen`, `--join` and their like are short for one of them; \
         giving both is an error). Unknown keys are errors, and the nearest key is named.\n\n\
         `tidings config check` takes what `tidings serve` takes and says whether all of it, the policy and the certificate \
         among it, makes sense: exit code 0 if so, 1 if not (the message names file and line, variable or flag, the key, its \
         value and what is allowed), 2 if the command line itself makes no sense. `tidings config default` prints a file to \
         start from, `tidings config docs` this page.\n\n\
         *New value*: what a changed value needs to count. `reload`: `SIGHUP` or `POST /v1/reload`, for what begins from \
         then on; `restart`: a start. What a reload answers: [operations.md](operations.md#reading-the-configuration-again).\n",
    );
    each_section(
        &mut text,
        |text, section, about| {
            let about: String = about.concat();
            text.push_str(&format!(
                "\n## `[{section}]`\n\n{}\n\n| key | default | unit | allowed | new value | meaning |\n\
                 | --- | --- | --- | --- | --- | --- |\n",
                about.trim()
            ));
        },
        |text, key, default| {
            let docs: String = key.docs.concat();
            text.push_str(&format!(
                "| `{}` | `{default}` | {} | {} | {} | {} |\n",
                key.name,
                key.unit(),
                allowed(key),
                counts(key),
                docs.trim().replace('|', "\\|")
            ));
        },
    );
    text
}

fn counts(key: &Key) -> &'static str {
    if key.counts_at_reload() { "reload" } else { "restart" }
}

fn each_section(
    text: &mut String,
    head: impl Fn(&mut String, &str, &[&str]),
    line: impl Fn(&mut String, &Key, &toml::Value),
) {
    let defaults = toml::Value::try_from(Config::default()).unwrap_or(toml::Value::Boolean(false));
    for (section, about) in SECTIONS {
        head(text, section, about);
        for key in KEYS.iter().filter(|key| key.section == *section) {
            if let Some(value) = defaults.get(key.section).and_then(|section| section.get(key.name)) {
                line(text, key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_the_defaults() {
        let read: Config = toml::from_str(&default_toml()).expect("it is TOML");
        assert_eq!(read, Config::default());
    }

    #[test]
    fn every_key_is_documented() {
        for key in KEYS {
            assert!(!key.docs.is_empty(), "{}", key.path);
            assert!(docs_markdown().contains(&format!("| `{}` |", key.name)), "{}", key.path);
        }
    }

    #[test]
    fn a_number_has_a_unit() {
        for key in KEYS.iter().filter(|key| key.kind == crate::config::Kind::Integer) {
            assert!(!key.unit().is_empty(), "{}", key.path);
        }
    }
}
