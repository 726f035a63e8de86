//! The monitor: the one process with rights. It parses no packet (design section 3).
