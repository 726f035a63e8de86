//! File systems that live on disks or in memory: reading and writing there may take time, but does not
//! wait for anybody.
#![forbid(unsafe_code)]

use rustix::fd::AsFd;
use rustix::fs::fstatfs;

/// By their numbers in statfs(2). FUSE and network file systems are not among them;
/// overlays are, since they are the root of many small boxes, and what a user could put below one
/// holds up that user's connection only.
const LOCAL: [u32; 18] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0xf2f5_2010, // f2fs
    0x794c_7630, // overlayfs
    0x2405_1905, // ubifs
    0x72b6,      // jffs2
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x4d44,      // vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0x9660,      // iso9660
    0x3434,      // nilfs2
];

/// Whether the file is on one of them.
pub fn is_local(file: impl AsFd) -> bool {
    // The kernel's number is a word that some architectures extend with its sign.
    fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32)))
}
