//! What a key line or a certificate permits with a word each, and what several of them do together.

/// The rights that options give and take by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the rights of the format"
)]
pub struct Permits {
    /// pty, no-pty, restrict
    pub pty: bool,
    /// user-rc, no-user-rc, restrict
    pub user_rc: bool,
    /// port-forwarding, no-port-forwarding, restrict
    pub port_forwarding: bool,
    /// agent-forwarding, no-agent-forwarding, restrict
    pub agent_forwarding: bool,
    /// X11-forwarding, no-X11-forwarding, restrict
    pub x11_forwarding: bool,
    /// restrict: no tunnel devices. Nothing gives them back.
    pub tunnel: bool,
}

impl Permits {
    /// Where a line begins.
    pub const ALL: Self = Self {
        pty: true,
        user_rc: true,
        port_forwarding: true,
        agent_forwarding: true,
        x11_forwarding: true,
        tunnel: true,
    };

    /// Where a certificate begins, and a line behind `restrict`.
    pub const NONE: Self = Self {
        pty: false,
        user_rc: false,
        port_forwarding: false,
        agent_forwarding: false,
        x11_forwarding: false,
        tunnel: false,
    };

    /// Keeps what `other` permits too.
    pub fn narrow(&mut self, other: Self) {
        self.pty &= other.pty;
        self.user_rc &= other.user_rc;
        self.port_forwarding &= other.port_forwarding;
        self.agent_forwarding &= other.agent_forwarding;
        self.x11_forwarding &= other.x11_forwarding;
        self.tunnel &= other.tunnel;
    }
}
