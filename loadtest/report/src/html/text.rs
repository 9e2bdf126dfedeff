//! Text that is safe inside a page: names come from files, command lines and the network.

/// Text as it may stand between tags and inside quoted attributes; control characters are shown as such.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(visible(c)),
        }
    }
    out
}

/// Control characters as such, and no marks that turn the direction of writing: a name would dress up as another.
pub(super) fn visible(c: char) -> char {
    match c {
        '\n' | '\t' => c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// JSON as it may stand inside a script element: nothing in it ends the element.
pub(super) fn script_json(value: &serde_json::Value) -> String {
    value
        .to_string()
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(
            escape("<img src=x onerror='a(\"b\")'>&\u{1b}[31m\u{202e}"),
            "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt;&amp;\u{fffd}[31m\u{fffd}"
        );
    }

    #[test]
    fn data_cannot_end_its_script() {
        let json = script_json(&serde_json::json!(["</script><!--"]));
        assert!(!json.contains('<') && !json.contains('>'));
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["</script><!--"]);
    }
}
