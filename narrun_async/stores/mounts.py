"""Which file system a path lies on, as the kernel tells it; elsewhere than on Linux nothing is known."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from narrun_async.errors import StorageError

MOUNT_TABLE = Path("/proc/self/mountinfo")

# SQLite's WAL needs shared memory between processes, which these do not give across machines; neither is flock.
_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "9p", "lustre", "gpfs", "beegfs"}
    | {"glusterfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "virtiofs", "davfs", "davfs2"}
)

_NETWORK_FUSE_TYPES = frozenset(
    {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.rclone", "fuse.s3fs", "fuse.juicefs"}
    | {"fuse.smbnetfs", "fuse.curlftpfs", "fuse.davfs2", "fuse.beegfs"}
)


def is_network_type(file_system: str) -> bool:
    """Whether files of this type may be open on another machine, too; every FUSE file system is taken for one."""
    return file_system in _NETWORK_TYPES or file_system == "fuse" or file_system.startswith("fuse.")


def is_surely_shared(file_system: str) -> bool:
    """Whether it is one of another machine, beyond doubt: most FUSE file systems are local (encryption, for one)."""
    return file_system in _NETWORK_TYPES or file_system in _NETWORK_FUSE_TYPES


def file_system_of(path: Path, *, table: str) -> str | None:
    """The type of the file system that holds an absolute path; None where the table says nothing.

    Of mounts over the same point, the last one counts: it lies on top.

    :param table: as `/proc/self/mountinfo`, see proc_pid_mountinfo(5)
    """
    deepest, found = -1, None
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ", 1)[0]
        if not separator or len(fields) < 5 or not kind:
            continue
        point = PurePosixPath(_unescaped(fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, found = len(point.parts), kind
    return found


def refuse_network_file_system(path: Path) -> None:
    """:raises StorageError: neither the lock nor SQLite's WAL would hold there"""
    file_system = file_system_of(path.resolve(), table=read_mount_table())
    if file_system is not None and is_surely_shared(file_system):
        raise StorageError(
            f"lies on a network file system ({file_system}), where neither locks nor SQLite's WAL can be trusted",
            path=path,
            advice="keep the database on a disk of this machine (--db), and copy it when the run has ended",
        )


def read_mount_table() -> str:
    """The mounts as this process sees them; empty where the kernel does not tell."""
    try:
        return MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _unescaped(point: str) -> str:
    """Blank, tab, line end and backslash are written as octal numbers."""
    for escape, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(escape, sign)
    return point
