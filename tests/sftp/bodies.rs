//! Bodies of the fuzz targets `sftp_request` and `scp_record`: what must hold for all bytes.

use agent_helper::scp::sink::{parse_record, parse_times};
use agent_helper::sftp::attributes::Attributes;
use agent_helper::sftp::packet::{Fields, Replies};
use agent_helper::sftp::request::{Decoded, Kind, decode};

/// Decodes `input` as a packet of a client: no panic, nothing from behind its end, and the same
/// answer for the same bytes.
pub fn request(input: &[u8]) {
    let Ok(decoded) = decode(input) else {
        assert!(input.len() < 5, "only what is too short has no number");
        return;
    };
    assert_eq!(decode(input).as_ref(), Ok(&decoded));
    let Decoded { kind, request, .. } = decoded;
    let Ok(request) = request else { return };
    let inside = |bytes: &[u8]| {
        let (start, end) = (input.as_ptr() as usize, input.as_ptr_range().end as usize);
        let at = bytes.as_ptr() as usize;
        assert!(bytes.is_empty() || (at >= start && at + bytes.len() <= end));
    };
    inside(request.first);
    inside(request.second);
    round_trip(&request.attributes);
    if kind == Some(Kind::UsersGroupsById) {
        assert!(request.first.len().is_multiple_of(4) && request.second.len().is_multiple_of(4));
    }
}

fn round_trip(attributes: &Attributes) {
    let mut replies = Replies::default();
    attributes.encode(&mut replies);
    let mut fields = Fields::new(replies.bytes());
    assert_eq!(Attributes::decode(&mut fields).as_ref(), Ok(attributes));
    assert!(fields.is_empty());
}

/// Takes `input` for a record of the old scp protocol: who sends one names a file in the directory at
/// hand and no other.
pub fn record(input: &[u8]) {
    if let Some(record) = parse_record(input) {
        assert!(record.mode <= 0o7777);
        assert!(input.ends_with(&record.name));
        assert!(!matches!(record.name.as_slice(), b"" | b"." | b".."));
        assert!(!record.name.iter().any(|byte| matches!(byte, 0 | b'/')));
    }
    if let Some(times) = parse_times(input) {
        assert!(times.last_access.tv_sec >= 0 && times.last_modification.tv_sec >= 0);
    }
}
