//! The filter [`FILTER`], which makes a text of a mail that somebody else has written in HTML, so that it can be passed on
//! without their mark-up. It shows what is written, and does not lay it out.

use minijinja::Value;

/// The filter's name: `{{ event.data.object.body | text_of_html }}`.
pub(super) const FILTER: &str = "text_of_html";

/// Elements whose content is not shown.
const HIDDEN: [&str; 4] = ["style", "script", "head", "title"];
/// Elements that begin or end a line.
const LINES: [&str; 14] =
    ["br", "p", "div", "tr", "li", "ul", "ol", "table", "blockquote", "h1", "h2", "h3", "hr", "pre"];
/// The named references that mail programs write.
const NAMED: [(&str, &str); 12] = [
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("nbsp", " "),
    ("ndash", "\u{2013}"),
    ("mdash", "\u{2014}"),
    ("hellip", "\u{2026}"),
    ("lsquo", "\u{2018}"),
    ("rsquo", "\u{2019}"),
    ("euro", "\u{20ac}"),
];
/// Longest name of a reference.
const LONGEST: usize = 10;

/// Returns the text of HTML: without tags, comments and what is not shown, with lines where elements end and with
/// references replaced. A text without mark-up is unchanged but for its blank lines. Null and other types have no text.
pub(super) fn text_of_html(value: &Value) -> Value {
    let html = value.as_str().unwrap_or_default();
    let mut text = String::with_capacity(html.len());
    let mut hidden: Option<&str> = None;
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        if hidden.is_none() {
            text.push_str(&resolved(before));
        }
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let is_tag = after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        let Some((tag, behind)) = after.split_once('>').filter(|_| is_tag) else {
            // A character that stands for itself.
            if hidden.is_none() {
                text.push('<');
            }
            rest = after;
            continue;
        };
        let (name, ends) = name(tag);
        match hidden {
            Some(element) if ends && name == element => hidden = None,
            Some(_) => {}
            None => {
                hidden = HIDDEN.into_iter().find(|element| !ends && name == *element);
                if LINES.contains(&name.as_str()) {
                    text.push('\n');
                }
            }
        }
        rest = behind;
    }
    if hidden.is_none() {
        text.push_str(&resolved(rest));
    }
    Value::from(tidy(&text))
}

/// Returns the name of a tag's element in lower case, and whether the tag ends it.
fn name(tag: &str) -> (String, bool) {
    let (tag, ends) = tag.strip_prefix('/').map_or((tag, false), |tag| (tag, true));
    let name = tag.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    (name.to_ascii_lowercase(), ends)
}

/// Replaces character references. One that is not known stays as it is.
fn resolved(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        whole.push_str(before);
        let found = after.split_once(';').filter(|(name, _)| name.len() <= LONGEST);
        match found.and_then(|(name, behind)| Some((reference(name)?, behind))) {
            Some((character, behind)) => {
                whole.push_str(&character);
                rest = behind;
            }
            None => {
                whole.push('&');
                rest = after;
            }
        }
    }
    whole.push_str(rest);
    whole
}

fn reference(name: &str) -> Option<String> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|c| *c != '\0').map(String::from);
    }
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, character)| (*character).to_owned())
}

/// Trims every line, and leaves one empty line of several.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut blank = 0;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            blank += 1;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if blank > 0 { "\n\n" } else { "\n" });
        }
        blank = 0;
        tidy.push_str(line);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_the_text() {
        for (html, text) in [
            ("<p>The code does not arrive.<br>Can you help?</p>", "The code does not arrive.\nCan you help?"),
            ("<style>p { color: red }</style><P CLASS='a>b'>Hi", "b'>Hi"),
            ("<html><head><title>x</title></head><body>a<!-- <p>no</p> -->b</body></html>", "ab"),
            (
                "Tom &amp; Jerry &lt;3 &#39;x&#39; &#x20AC; &nbsp;&unknown; &",
                "Tom & Jerry <3 'x' \u{20ac}  &unknown; &",
            ),
            ("1 < 2 and 3 > 2, a<b", "1 < 2 and 3 > 2, a<b"),
            ("<div>a</div>\n\n\n\n<div> b </div>", "a\n\nb"),
            ("plain\n\n\ntext", "plain\n\ntext"),
            ("<script>alert(1)", ""),
            ("&#0;&#1114112;", "&#0;&#1114112;"),
            ("", ""),
        ] {
            assert_eq!(text_of_html(&Value::from(html)), Value::from(text), "{html}");
        }
        for other in [Value::from(()), Value::from(7), Value::UNDEFINED] {
            assert_eq!(text_of_html(&other), Value::from(""), "{other:?}");
        }
    }

    #[test]
    fn nothing_that_is_sent_makes_it_fail() {
        let pieces = ["<", ">", "&", ";", "#", "x", "/", "!--", "-->", "p", "style", "\u{e9}", " ", "\n", "\0"];
        for seed in 0_usize..20_000 {
            let html: String = (0..12)
                .map(|place| pieces[(seed / 7_usize.pow(place % 5) + seed * place as usize) % pieces.len()])
                .collect();
            let _ = text_of_html(&Value::from(html));
        }
    }
}
