//! The `net` processes: everything that parses packets runs here, confined (design section 3).
