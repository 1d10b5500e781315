//! What somebody may do, and sets of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What somebody may do; which method needs which role is `edge/methods.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends frames and takes verdicts. Never a person's.
    Line,
    /// Searches decisions, answers which parts are affected, holds and erases.
    Qa,
    /// Brings models and thresholds in and out of use.
    Steward,
    /// Approves what a steward brings, as the second person.
    Approver,
    /// Reads the evidence of the customers and periods that were granted.
    Auditor,
    /// Looks at doubtful parts.
    Reviewer,
    /// Runs the installation.
    Admin,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Line, Self::Qa, Self::Steward, Self::Approver, Self::Auditor, Self::Reviewer, Self::Admin];

    /// As certificates and the configuration say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Qa => "qa",
            Self::Steward => "steward",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Reviewer => "reviewer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            format!("{text:?} is no role; roles are line, qa, steward, approver, auditor, reviewer and admin")
        })
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Nobody's.
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < roles.len() {
            set |= 1 << roles[at] as u8;
            at += 1;
        }
        Self(set)
    }

    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    /// Whether one of `others` is among them.
    #[must_use]
    pub const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    #[must_use]
    pub const fn without(self, role: Role) -> Self {
        Self(self.0 & !(1 << role as u8))
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        roles.into_iter().fold(Self::NONE, |set, role| set.with(Self::of(&[role])))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.pad("no role");
        }
        let names: Vec<_> = self.iter().map(Role::name).collect();
        f.pad(&names.join(", "))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>(), Ok(role));
            let set: Roles = [role].into_iter().collect();
            assert!(Role::ALL.into_iter().all(|other| set.has(other) == (other == role)));
            assert_eq!(set.without(role), Roles::NONE);
        }
        let set = Roles::of(&[Role::Qa, Role::Auditor]);
        assert!(set.has_any(Roles::of(&[Role::Auditor, Role::Line])) && !set.has_any(Roles::of(&[Role::Line])));
        assert_eq!(set.to_string(), "qa, auditor");
        assert_eq!(Roles::NONE.to_string(), "no role");
        assert!("Qa".parse::<Role>().unwrap_err().contains("roles are line, qa"));
    }
}
