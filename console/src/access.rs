//! Roles and their checks. Pure: of a request only the relevant headers are taken ([`Presented`]), and
//! [`AccessPolicy::admit`] answers with the caller or with the refusal. Nothing here reads a clock, a socket or the environment.
//!
//! Four rules, in this order:
//!
//! 1. The `Host` must be one that is allowed, so that a name of somebody else's that is made to lead here (DNS rebinding)
//!    opens nothing.
//! 2. The caller must have the role that the route needs. Without a token, a name from the proxy, or a server that is bound
//!    to loopback and has neither, the role is none.
//! 3. A request that changes something must not come from another site (`Origin`, `Sec-Fetch-Site`).
//! 4. It must prove that its sender has read a page of the console or is no browser: by the token of the page's form, by a
//!    bearer token, or, for the API on loopback, by a header that a page of another site cannot set.

mod host;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use host::AllowedHosts;
pub(crate) use session::{SessionKey, clean_name, form_token, new_visit};
use subtle::ConstantTimeEq as _;
use usher_proto::Timestamp;
use usher_service::Secret;

/// The role of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccessRole {
    /// Nothing.
    None,
    /// See everything, with personal data masked.
    Reader,
    /// Everything.
    Operator,
}

impl AccessRole {
    /// Returns the role's name.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::None => "no access",
            Self::Reader => "read-only",
            Self::Operator => "operator",
        }
    }
}

/// The role that a route demands of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteNeed {
    /// Nothing: the login form and the assets, which hold no data.
    Public,
    /// The role `Reader`.
    Read,
    /// The role `Operator`.
    Operate,
}

impl RouteNeed {
    const fn role(self) -> AccessRole {
        match self {
            Self::Public => AccessRole::None,
            Self::Read => AccessRole::Reader,
            Self::Operate => AccessRole::Operator,
        }
    }
}

/// A caller who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Name under which actions are recorded.
    pub(crate) name: String,
    /// The caller's role.
    pub(crate) role: AccessRole,
}

/// The reason for refusing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessRefusal {
    /// The `Host` is missing or not allowed.
    #[error("this server is not called by that name: say USHER_CONSOLE_HOSTS")]
    Host,
    /// Nobody has said who they are, or the token is wrong.
    #[error("a token is wanted")]
    NotSignedIn,
    /// The server has no token and is not bound to loopback alone.
    #[error("the console is closed: it is not bound to loopback alone, and USHER_CONSOLE_TOKEN is not set")]
    Closed,
    /// The caller's role does not suffice.
    #[error("your role is read-only: this needs an operator")]
    Role,
    /// The request comes from a page of another site.
    #[error("this request comes from a page of another site")]
    ForeignSite,
    /// The request has no proof that it was meant.
    #[error("the form is out of date: load the page again")]
    NoProof,
}

/// The parts of a request by which it is admitted or refused; absent if the request lacks them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Presented<'a> {
    /// `Host`.
    pub(crate) host: Option<&'a str>,
    /// `Origin`.
    pub(crate) origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub(crate) fetch_site: Option<&'a str>,
    /// The token of `Authorization: Bearer`.
    pub(crate) bearer: Option<&'a str>,
    /// Name that a caller with a bearer token gives.
    pub(crate) by: Option<&'a str>,
    /// The console's cookie.
    pub(crate) cookie: Option<&'a str>,
    /// The user whom the proxy names.
    pub(crate) user: Option<&'a str>,
    /// The token of the form.
    pub(crate) form_token: Option<&'a str>,
    /// True if the header is there that only a program or a page of this site can set.
    pub(crate) is_program: bool,
    /// True if the request changes something.
    pub(crate) changes: bool,
}

/// Settings of the access.
#[derive(Debug, Clone)]
pub(crate) struct AccessPolicy {
    /// True if the server is bound to a loopback address.
    pub(crate) on_loopback: bool,
    /// Name of a caller on loopback who needs no token and gives no name.
    pub(crate) local_name: String,
    /// The operator's token.
    pub(crate) operator_token: Option<Secret>,
    /// The token that only reads.
    pub(crate) reader_token: Option<Secret>,
    /// Name of the header in which a proxy names the user, in lower case.
    pub(crate) user_header: Option<String>,
    /// Users whom the proxy names and who may act; `*` stands for all. Others only read.
    pub(crate) operators: Vec<String>,
    /// The hosts by which the server may be called.
    pub(crate) hosts: AllowedHosts,
}

/// Name of a program that gives none.
const PROGRAM: &str = "api";

impl AccessPolicy {
    /// Returns true if whoever reaches the server may act: it is bound to loopback, and no other way in is configured.
    pub(crate) fn is_open(&self) -> bool {
        self.on_loopback && !self.has_token() && self.user_header.is_none()
    }

    /// Returns true if a token opens the console.
    pub(crate) fn has_token(&self) -> bool {
        self.operator_token.is_some() || self.reader_token.is_some()
    }

    /// Returns the role that a token gives. Takes the same time for each token of the same length.
    pub(crate) fn role_of(&self, token: &str) -> AccessRole {
        let is = |secret: &Option<Secret>| {
            secret.as_ref().is_some_and(|secret| bool::from(secret.expose().as_bytes().ct_eq(token.as_bytes())))
        };
        match (is(&self.operator_token), is(&self.reader_token)) {
            (true, _) => AccessRole::Operator,
            (false, true) => AccessRole::Reader,
            (false, false) => AccessRole::None,
        }
    }

    /// Returns the caller, as far as the request tells.
    pub(crate) fn caller(&self, presented: &Presented<'_>, now: Timestamp) -> Caller {
        let caller = |name: &str, role| Caller { name: clean_name(name).unwrap_or_else(|| PROGRAM.to_owned()), role };
        let user = presented.user.filter(|user| self.user_header.is_some() && !user.is_empty());
        if let Some(token) = presented.bearer.filter(|_| self.has_token()) {
            return caller(user.or(presented.by).unwrap_or(PROGRAM), self.role_of(token));
        }
        if let Some(user) = user {
            let acts = self.operators.iter().any(|name| name == "*" || name == user);
            return caller(user, if acts { AccessRole::Operator } else { AccessRole::Reader });
        }
        if let Some(caller) = presented.cookie.and_then(|cookie| self.session(cookie, now)) {
            return caller;
        }
        caller(
            presented.by.unwrap_or(&self.local_name),
            if self.is_open() { AccessRole::Operator } else { AccessRole::None },
        )
    }

    /// Returns the caller of a session; `None` if its token is not configured any more, or its time is over.
    fn session(&self, cookie: &str, now: Timestamp) -> Option<Caller> {
        let keys = [(&self.operator_token, AccessRole::Operator), (&self.reader_token, AccessRole::Reader)];
        keys.into_iter().find_map(|(token, role)| {
            let name = SessionKey::of(token.as_ref()?).read(cookie, now)?;
            Some(Caller { name, role })
        })
    }

    /// Lets a request in, or refuses it.
    ///
    /// # Errors
    ///
    /// The first rule that the request breaks, in the order of the module's description.
    pub(crate) fn admit(
        &self,
        need: RouteNeed,
        presented: &Presented<'_>,
        now: Timestamp,
    ) -> Result<Caller, AccessRefusal> {
        if !presented.host.is_some_and(|host| self.hosts.allow(host)) {
            return Err(AccessRefusal::Host);
        }
        let caller = self.caller(presented, now);
        if caller.role < need.role() {
            return Err(match caller.role {
                AccessRole::None if !self.has_token() && self.user_header.is_none() => AccessRefusal::Closed,
                AccessRole::None => AccessRefusal::NotSignedIn,
                AccessRole::Reader | AccessRole::Operator => AccessRefusal::Role,
            });
        }
        if presented.changes {
            if presented.comes_from_another_site() {
                return Err(AccessRefusal::ForeignSite);
            }
            if !presented.proves_intent() {
                return Err(AccessRefusal::NoProof);
            }
        }
        Ok(caller)
    }
}

impl Presented<'_> {
    /// Returns true if a browser tells that a page of another site sends the request.
    fn comes_from_another_site(&self) -> bool {
        let elsewhere = self.fetch_site.is_some_and(|site| site != "same-origin");
        elsewhere
            || self.origin.is_some_and(|origin| host::of_origin(origin).is_none_or(|host| self.host != Some(host)))
    }

    fn proves_intent(&self) -> bool {
        if self.bearer.is_some() || self.is_program {
            return true;
        }
        let Some((cookie, token)) = self.cookie.zip(self.form_token) else { return false };
        bool::from(form_token(cookie).as_bytes().ct_eq(token.as_bytes()))
    }
}
