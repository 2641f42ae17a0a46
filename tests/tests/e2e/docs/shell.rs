//! Reads command lines as a shell does, as far as documentation uses its language.

/// Returns the commands of a line, each as its words: what `|`, `&&`, `||` and `;` separate. A comment is left out.
pub(super) fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    let finish = |word: &mut Option<String>, commands: &mut Vec<Vec<String>>| {
        if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
            command.push(word);
        }
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => finish(&mut word, &mut commands),
            (None, '|' | '&' | ';') => {
                finish(&mut word, &mut commands);
                while chars.next_if(|next| matches!(next, '|' | '&')).is_some() {}
                commands.push(Vec::new());
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {line}");
    finish(&mut word, &mut commands);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Returns the command without what stands before its program: variables, and `sudo` with the user's name.
pub(super) fn without_prefix(command: &[String]) -> &[String] {
    let is_variable = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let mut rest = command;
    loop {
        rest = match rest {
            [first, more @ ..] if is_variable(first) => more,
            [sudo, option, _, more @ ..] if sudo == "sudo" && option == "-u" => more,
            [sudo, more @ ..] if sudo == "sudo" => more,
            _ => return rest,
        };
    }
}

#[test]
fn a_line_is_read_as_a_shell_reads_it() {
    let read = |line: &str| commands(line).into_iter().map(|words| words.join("+")).collect::<Vec<_>>();
    assert_eq!(read("usher send user.created   # a comment"), ["usher+send+user.created"]);
    assert_eq!(read("a 'b c' \"d \\\" e\" f\\ g"), ["a+b c+d \" e+f g"]);
    assert_eq!(read("a | b && c || d; e"), ["a", "b", "c", "d", "e"]);
    assert_eq!(read("curl 'http://x/?a=1&b=2'#c"), ["curl+http://x/?a=1&b=2#c"]);
    let words = commands("A=1 sudo -u usher B_C='d e' usher up");
    assert_eq!(without_prefix(&words[0]), ["usher", "up"]);
}
