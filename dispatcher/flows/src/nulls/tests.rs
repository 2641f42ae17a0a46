use super::*;

#[test]
fn steps_into_metadata_are_taken_one_by_one() {
    for (written, compiled) in [
        ("user.public_metadata.plan", "(user.public_metadata|_below('plan'))"),
        ("user.public_metadata.plan.tier == 1", "(user.public_metadata|_below('plan')|_below('tier')) == 1"),
        ("not user.unsafe_metadata['a'].b[0]", "not (user.unsafe_metadata|_below('a')|_below('b')|_below(0))"),
        ("user['private_metadata'].a", "(user['private_metadata']|_below('a'))"),
        ("event.data.organization.public_metadata.a", "(event.data.organization.public_metadata|_below('a'))"),
        ("event.data.list[0].public_metadata.a", "(event.data.list[0].public_metadata|_below('a'))"),
        ("(user or event).public_metadata.a", "((user or event).public_metadata|_below('a'))"),
        (
            "user.public_metadata[user.public_metadata.key]",
            "(user.public_metadata|_below((user.public_metadata|_below('key'))))",
        ),
        ("user.public_metadata.a|tojson", "(user.public_metadata|_printed('a'))|tojson"),
        ("user.public_metadata.tags[1:]", "(user.public_metadata|_below('tags'))[1:]"),
        ("user.public_metadata.items()", "user.public_metadata.items()"),
        ("user.public_metadata", "user.public_metadata"),
        ("user.public_metadata == {}", "user.public_metadata == {}"),
        ("public_metadata.a", "public_metadata.a"),
        ("'user.public_metadata.a'", "'user.public_metadata.a'"),
    ] {
        assert_eq!(expression(written), compiled);
    }
}

#[test]
fn operands_are_wrapped_up_to_what_binds_less() {
    for (written, compiled) in [
        ("a in b", "a in (b|_members)"),
        ("a not in b.c | list and d", "a not in (b.c | list|_members) and d"),
        ("(a in [b, c]) or d", "(a in ([b, c]|_members)) or d"),
        ("a > 5 and b < 7", "a > (5|_at_most) and (b|_at_most) < 7"),
        ("x if a.b + 1 <= f(1, 2) else y", "x if ((a.b + 1)|_at_most) <= f(1, 2) else y"),
        ("'a' in x ~ n", "'a' in ((x ~ n)|_members)"),
        ("event.data.in == 1", "event.data.in == 1"),
        ("event.data.if < 1", "(event.data.if|_at_most) < 1"),
        ("[a < b, c >= d]", "[(a|_at_most) < b, c >= (d|_at_most)]"),
        ("a == b != c", "a == b != c"),
        ("'a < b'", "'a < b'"),
        ("a in user.public_metadata.b", "a in ((user.public_metadata|_below('b'))|_members)"),
        ("user.public_metadata.b > 5", "(user.public_metadata|_below('b')) > (5|_at_most)"),
        ("user.public_metadata.b < 5", "((user.public_metadata|_below('b'))|_at_most) < 5"),
    ] {
        assert_eq!(expression(written), compiled);
    }
}

#[test]
fn of_a_template_the_expressions_are_rewritten_and_nothing_else() {
    for (written, compiled) in [
        ("a < b in c {{ x }} user.public_metadata.a", "a < b in c {{ x }} user.public_metadata.a"),
        ("{{ user.public_metadata.a }}", "{{ (user.public_metadata|_printed('a')) }}"),
        ("{{- user.public_metadata.a -}}", "{{- (user.public_metadata|_printed('a')) -}}"),
        ("{{ user.public_metadata.a or '' }}", "{{ (user.public_metadata|_below('a')) or '' }}"),
        ("{{ {'a': {'b': 1 in x}} }}", "{{ {'a': {'b': 1 in (x|_members)}} }}"),
        ("{% for a in b if a in c %}{{ a }}{% endfor %}", "{% for a in b if a in (c|_members) %}{{ a }}{% endfor %}"),
        ("{%- if a < '%}' %}x{% endif %}", "{%- if (a|_at_most) < '%}' %}x{% endif %}"),
        (
            "{% for a in b if a.n > 5 recursive %}{% endfor %}",
            "{% for a in b if a.n > (5|_at_most) recursive %}{% endfor %}",
        ),
        ("{% set a = b < c %}", "{% set a = (b|_at_most) < c %}"),
        ("{# a < b #}{{ a > b }}", "{# a < b #}{{ a > (b|_at_most) }}"),
        ("{% raw %}{{ a > b }}{% endraw %}{{ c > d }}", "{% raw %}{{ a > b }}{% endraw %}{{ c > (d|_at_most) }}"),
        ("{ {{ a }", "{ {{ a }"),
        ("{{ 'a", "{{ 'a"),
        ("{{", "{{"),
        ("{% if \u{1f600} %}\u{1f600}", "{% if \u{1f600} %}\u{1f600}"),
    ] {
        assert_eq!(template(written), compiled);
    }
}
