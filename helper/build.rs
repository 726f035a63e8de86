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
        // One page less in the file and in memory: headers, code and constants share segments.
        "-Wl,-z,noseparate-code",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    // A bit for most pointers in place of three words. Debian's linkers know it for x86 only.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
