//! How the `helper` binary is linked: static, position-independent, without a C library or start files.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=discard.ld");
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/discard.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-nodefaultlibs",
        "-static-pie",
        "-Wl,--no-dynamic-linker",
        "-Wl,--build-id=none",
        "-Wl,--hash-style=gnu",
        "-Wl,--no-eh-frame-hdr",
        "-Wl,-z,norelro",
        // A word or less for each pointer in place of three; linkers that cannot say so and go on.
        "-Wl,-z,pack-relative-relocs",
        // One page less in the file and in memory: headers, code and constants share segments.
        "-Wl,-z,noseparate-code",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
