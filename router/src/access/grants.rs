//! Grants: exact object IDs, or prefixes that end at a separator. Deny by default.
//!
//! IDs are compared byte for byte, as everywhere: nothing is decoded, normalised or resolved, so `a/../b` is an ID that begins
//! with `a/` and has nothing to do with `b`. A grant is written as text: `order:42` is that object, `order:*` every object
//! whose ID begins with `order:`, `*` alone everything. `{subject}` stands for whoever bears the credential.
//!
//! It does not know who that is, or how that was proven.

use tidings_protocol::id::check_object_id;

/// What a prefix may end with: `order:*`, `order/*`, `order.*`. So `a*` cannot be written, which would also grant `ab`.
pub const SEPARATORS: [char; 3] = [':', '/', '.'];

/// The most grants one list may hold.
pub const MOST_GRANTS: usize = 256;

const SUBJECT: &str = "{subject}";

/// What somebody wants to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Hear of its changes, and ask for its version.
    Subscribe,
    /// Say that it changed.
    Publish,
}

/// Why a text is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It is no object ID and no prefix of one.
    #[error("a grant has 1 to 255 bytes without control characters")]
    NotAnId,
    /// A star elsewhere than behind a final separator.
    #[error("`*` stands alone, or at the end behind one of `:` `/` `.`")]
    Star,
    /// A brace that is not part of `{{subject}}`.
    #[error("braces stand only in `{{subject}}`")]
    Brace,
    /// A list with too many of them.
    #[error("a list has at most {MOST_GRANTS} grants")]
    TooMany,
}

/// A grant as it was written, found to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<str>);

impl Template {
    /// Reads a grant.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn read(text: &str) -> Result<Self, GrantError> {
        check_object_id(text).map_err(|_| GrantError::NotAnId)?;
        let fixed = text.replace(SUBJECT, "x");
        if fixed.contains(['{', '}']) {
            return Err(GrantError::Brace);
        }
        let stars = fixed.matches('*').count();
        let at_the_end = fixed
            .strip_suffix('*')
            .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with(SEPARATORS));
        if stars > 1 || (stars == 1 && !at_the_end) {
            return Err(GrantError::Star);
        }
        Ok(Self(text.into()))
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The grant for one subject. `None`: it grants this subject nothing, because its name could reach beyond its place
    /// (a separator, a star or a brace in it), or because the result is no ID.
    #[must_use]
    pub fn fill(&self, subject: &str) -> Option<Pattern> {
        let mut text = self.0.to_string();
        if text.contains(SUBJECT) {
            let reaches_out = |c: char| SEPARATORS.contains(&c) || matches!(c, '*' | '{' | '}') || c.is_control();
            if subject.is_empty() || subject.contains(reaches_out) {
                return None;
            }
            text = text.replace(SUBJECT, subject);
        }
        check_object_id(&text).ok()?;
        Some(match text.strip_suffix('*') {
            Some("") => Pattern::Everything,
            Some(prefix) => Pattern::Prefix(prefix.into()),
            None => Pattern::Exact(text.into()),
        })
    }
}

/// A grant that names what it grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every object.
    Everything,
    /// This object.
    Exact(Box<str>),
    /// Every object whose ID begins with this and has more behind it.
    Prefix(Box<str>),
}

impl Pattern {
    /// Whether it grants this object.
    #[must_use]
    pub fn matches(&self, object: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Exact(id) => **id == *object,
            Self::Prefix(prefix) => object.len() > prefix.len() && object.starts_with(&**prefix),
        }
    }
}

/// Grants as they were written, for any subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates {
    /// What may be watched.
    pub subscribe: Vec<Template>,
    /// What may be published.
    pub publish: Vec<Template>,
    /// Whether it may ask and tell what operators do.
    pub admin: bool,
}

impl Templates {
    /// Reads two lists of texts.
    ///
    /// # Errors
    /// The first text that is no grant, and why.
    pub fn read<T: AsRef<str>>(subscribe: &[T], publish: &[T], admin: bool) -> Result<Self, (String, GrantError)> {
        let list = |texts: &[T]| {
            if texts.len() > MOST_GRANTS {
                return Err((String::new(), GrantError::TooMany));
            }
            let read = |text: &T| Template::read(text.as_ref()).map_err(|error| (text.as_ref().to_owned(), error));
            texts.iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            subscribe: list(subscribe)?,
            publish: list(publish)?,
            admin,
        })
    }

    /// The grants of one subject.
    #[must_use]
    pub fn fill(&self, subject: &str) -> Grants {
        let fill = |list: &[Template]| list.iter().filter_map(|template| template.fill(subject)).collect();
        Grants {
            subscribe: fill(&self.subscribe),
            publish: fill(&self.publish),
            admin: self.admin,
        }
    }

    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.publish.is_empty() && !self.admin
    }
}

/// What one subject is granted. Nothing, unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// What it may watch.
    pub subscribe: Vec<Pattern>,
    /// What it may publish.
    pub publish: Vec<Pattern>,
    /// Whether it may do what operators do.
    pub admin: bool,
}

impl Grants {
    /// Whether the action is granted.
    #[must_use]
    pub fn allow(&self, action: Action, object: &str) -> bool {
        let list = match action {
            Action::Subscribe => &self.subscribe,
            Action::Publish => &self.publish,
        };
        list.iter().any(|pattern| pattern.matches(object))
    }
}

/// What one credential allows: what every credential of its kind has, and of what it says itself as much as its issuer may
/// give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Given by the policy.
    pub every: Grants,
    /// Said by the credential.
    pub own: Grants,
    /// The most that the credential may say.
    pub most: Grants,
}

impl Permission {
    /// Whether the action is allowed.
    #[must_use]
    pub fn allow(&self, action: Action, object: &str) -> bool {
        self.every.allow(action, object) || (self.own.allow(action, object) && self.most.allow(action, object))
    }

    /// Whether it may do what operators do.
    #[must_use]
    pub fn admin(&self) -> bool {
        self.every.admin || (self.own.admin && self.most.admin)
    }
}

#[cfg(test)]
mod tests;
