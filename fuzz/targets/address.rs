//! Addresses. Input: a text that may be a mailbox.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_proto::address::{local_part, normal_form, one_line};
use usher_proto::{AddressDigest, Mailbox};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let line = one_line(text);
    assert_eq!(one_line(&line), line);
    let Ok(mailbox) = text.parse::<Mailbox>() else { return };

    // One address, that any reader of the written form finds again.
    assert!(text.contains(&mailbox.address));
    let written = mailbox.to_text();
    assert_eq!(one_line(&written), written);
    let again: Mailbox = written.parse().expect("what was read can be read again");
    assert_eq!(again.address, mailbox.address);
    assert_eq!(again.to_text(), written);
    let normal = normal_form(&mailbox.address);
    for text in [&mailbox.address, &normal] {
        assert_eq!(text.matches(['@', ',', ';', '<', '>']).count(), 1, "{text}");
    }

    // Every form in which it is sent has the same digest.
    let digest = AddressDigest::of(&mailbox.address);
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!(normal.rsplit_once('@').map(|(local, _)| local.to_owned()), local_part(&mailbox.address));
    for upper in [false, true] {
        let spelled = if upper { mailbox.address.to_ascii_uppercase() } else { mailbox.address.to_ascii_lowercase() };
        assert_eq!(AddressDigest::of(&spelled), digest, "{spelled}");
    }
    let sent = mailbox.clone().with_smtp_local_part();
    assert_eq!(AddressDigest::of(&sent.address), digest);
    assert_eq!(sent.clone().with_smtp_local_part().address, sent.address);
    if let Ok(ascii) = sent.with_ascii_domain() {
        assert_eq!(AddressDigest::of(&ascii.address), digest);
        assert!(ascii.address.rsplit_once('@').is_some_and(|(_, domain)| domain.is_ascii()));
        assert!(ascii.to_text().parse::<Mailbox>().is_ok_and(|read| read.address == ascii.address));
    }
});
