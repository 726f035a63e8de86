#!/bin/sh
# install-std.sh TARGET SYSROOT MUSL
#
# Makes a sysroot for /usr/bin/rustc (Debian's rustc-web) that knows the musl TARGET besides the
# machine's own: std is compiled once from rust-web-src, without network, and put into SYSROOT,
# which nothing else uses. MUSL is the prefix that holds musl-dev for TARGET (/usr for the
# machine's own architecture, else what fetch-musl.sh unpacked).
#
# std is compiled for size and without the `backtrace` feature: that saves some 250 KiB in every
# program. Frame pointers are kept, so that the agent's own profiler can walk the stack.
set -eu

target=$1
sysroot=$2
musl=$3
here=$(cd "$(dirname "$0")" && pwd)
debian_sysroot=$(/usr/bin/rustc --print sysroot)
vendor=/usr/lib/rustlib/src/rust/library/vendor
host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')

case $target in
x86_64-*)  musl_triplet=x86_64-linux-musl;    cc=x86_64-linux-gnu-gcc ;;
aarch64-*) musl_triplet=aarch64-linux-musl;   cc=aarch64-linux-gnu-gcc ;;
armv7-*)   musl_triplet=arm-linux-musleabihf; cc=arm-linux-gnueabihf-gcc ;;
*) echo "install-std.sh: no recipe for $target" >&2; exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
library=$work/sysroot/lib/rustlib/$target/lib
startup=$library/self-contained
mkdir -p "$startup" "$work/src"

# What rustc links a static musl program from: musl's start files and libc, gcc's begin and end.
for file in crt1.o Scrt1.o rcrt1.o crti.o crtn.o libc.a; do
    cp "$musl/lib/$musl_triplet/$file" "$startup/"
done
for file in crtbegin.o crtbeginS.o crtend.o crtendS.o; do
    cp "$($cc -print-file-name=$file)" "$startup/"
done
# rustc asks for libunwind.a; gcc's unwinder serves, with what musl lacks for it added.
cp "$($cc -print-file-name=libgcc_eh.a)" "$startup/libunwind.a"
$cc -Os -fPIC -ffunction-sections -fno-stack-protector -nostdinc \
    -isystem "$musl/include/$musl_triplet" -isystem "$($cc -print-file-name=include)" \
    -c "$here/unwind_shim.c" -o "$work/unwind_shim.o"
ar r "$startup/libunwind.a" "$work/unwind_shim.o" 2>/dev/null

# panic_abort alone is compiled with panic=abort, so that users of this std have the choice.
cat >"$work/rustc-wrapper" <<'WRAPPER'
#!/bin/sh
rustc=$1
shift
case " $* " in
*" --crate-name panic_abort "*) exec "$rustc" "$@" -Cpanic=abort ;;
*) exec "$rustc" "$@" ;;
esac
WRAPPER
chmod +x "$work/rustc-wrapper"

cat >"$work/Cargo.toml" <<'MANIFEST'
[package]
name = "std-for-musl"
version = "0.0.0"
edition = "2021"
[lib]
path = "src/lib.rs"
[workspace]
MANIFEST
echo '#![no_std]' >"$work/src/lib.rs"

cd "$work"
env -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WORKSPACE_WRAPPER -u RUSTUP_TOOLCHAIN \
    PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_WRAPPER="$work/rustc-wrapper" \
    RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_OPT_LEVEL=s CARGO_HOME="$work/home" CARGO_TARGET_DIR="$work/target" \
    RUSTFLAGS="-Cembed-bitcode=yes -Cforce-unwind-tables=yes -Cforce-frame-pointers=yes" \
    /usr/bin/cargo build --quiet --release --offline --target "$target" \
    -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test \
    -Zbuild-std-features=panic-unwind,optimize_for_size \
    --config 'source.crates-io.replace-with="vendored"' \
    --config "source.vendored.directory=\"$vendor\""

for file in "$work/target/$target"/release/deps/*.rlib; do
    case $file in
    *std_for_musl*) ;;
    *) cp "$file" "$library/" ;;
    esac
done

# Put in place by rename: whoever finds the directory finds it whole.
mkdir -p "$sysroot/lib/rustlib"
[ -e "$sysroot/lib/rustlib/$host" ] ||
    ln -s "$debian_sysroot/lib/rustlib/$host" "$sysroot/lib/rustlib/$host"
rm -rf "$sysroot/lib/rustlib/$target"
mv "$work/sysroot/lib/rustlib/$target" "$sysroot/lib/rustlib/$target"
